"""Archives of workspaces, and what they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

WORKSPACE = "workspace/"
"""In an archive, what stands before the paths of files."""
MANIFEST = "manifest.json"
"""The last member of an archive."""
MANIFEST_FORMAT = "stationmaster.workspace-archive"
MANIFEST_VERSION = 1


class ArchiveFormat(StrEnum):
    """How an archive is compressed."""

    TAR_GZ = "TAR_GZ"
    TAR_ZST = "TAR_ZST"

    @property
    def ending(self) -> str:
        """What names of such files end with."""
        return f".{self.lower().replace('_', '.')}"


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that is there. `id` is its own: a session's next archive has another."""

    id: UUID
    session_id: UUID
    user_id: UUID
    format: ArchiveFormat
    size_bytes: int
    content_bytes: int
    file_count: int
    sha256: str
    created_at: datetime

    @property
    def etag(self) -> str:
        """Another one whenever the archive is another."""
        return self.id.hex


@dataclass(frozen=True, slots=True)
class Left:
    """What is to be removed of an archive, whose state is GONE, and what it counts for."""

    organization_id: UUID
    id: UUID
    session_id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, as its manifest has it."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may unpack to. `most_ratio` None: it may be packed as well as it likes.

    `distinct_in_case`: two paths must differ in more than that, as they would be one on some disks.
    """

    most_files: int
    most_bytes: int
    most_ratio: int | None = None
    distinct_in_case: bool = True
    most_names: int = 0
    """Where it is more than `most_files`: how many files there might be, of which the bounds of folders are made."""


@dataclass(frozen=True, slots=True)
class ArchivePiece:
    """Some bytes of an archive; the first piece brings the archive."""

    archive: Archive | None
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a clean-up deleted, or would delete."""

    count: int
    size_bytes: int
    sample: list[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of archives: what one may hold, and how long it is kept."""

    most_files: int
    most_bytes: int
    most_ratio: int
    retention: timedelta


class ArchiveRefused(Exception):
    """The archive is not one that may be restored: `why`, and at which member (empty: the archive itself)."""

    def __init__(self, member: str, why: str) -> None:
        super().__init__(f"{member!r}: {why}" if member else why)
        self.member = member
        self.why = why


class NotOurs(ArchiveRefused):
    """It is not of the form that archives of workspaces have: another program made it, or somebody by hand."""


def archive_name(session_id: UUID) -> str:
    """`archives/{session}`."""
    return f"archives/{session_id}"


def names_of(form: ArchiveFormat) -> tuple[str, ...]:
    """The names of an archive in its home."""
    return (f"archive{form.ending}",)
