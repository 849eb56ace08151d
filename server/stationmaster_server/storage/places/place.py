"""What every place for files can do. Paths come as names that `paths.parse` has let through."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

PIECE_BYTES = 1024 * 1024
"""Files are read and sent in pieces of so many bytes; the last one may be shorter."""

Names = Sequence[str]


@dataclass(frozen=True, slots=True)
class Home:
    """Whose files: of which session."""

    organization_id: UUID
    session_id: UUID


@dataclass(frozen=True, slots=True)
class Found:
    """A file, or a folder (`size_bytes` None), in a place."""

    path: str
    size_bytes: int | None
    etag: str = ""
    changed_at: datetime | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is one."""
        return self.size_bytes is None

    @property
    def cursor(self) -> str:
        """What a listing goes on after."""
        return f"{self.path}/" if self.is_folder else self.path


@dataclass(frozen=True, slots=True)
class Listed:
    """Some of what is in a folder, and after which cursor there may be more (empty: there is no more)."""

    found: list[Found]
    after: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """An upload whose bytes are kept for good: how many, and their SHA-256."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Published:
    """A file that has come to its place, and the size of the one that it replaced, unless that is not `known`."""

    found: Found
    replaced_bytes: int | None
    known: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """What there is in a workspace."""

    used_bytes: int
    file_count: int


class Receiver(Protocol):
    """An upload that bytes are added to. Nobody else adds to it meanwhile."""

    @property
    def offset(self) -> int:
        """How many bytes have been given to it, or were there."""

    async def write(self, data: bytes) -> None:
        """Add bytes. Returns when the next may come; they are not kept for good yet. Raises OSError, Unavailable."""

    async def seal(self) -> Sealed:
        """Keep all bytes for good. Raises OSError, Unavailable."""


class Reading(Protocol):
    """A file that is open to be read: as it was when it was opened, or not at all."""

    @property
    def found(self) -> Found:
        """What is known of it."""

    def pieces(self, offset: int, seen: Callable[[bytes], None] | None = None) -> AsyncGenerator[bytes, None]:
        """Its bytes from an offset on. `seen` is called with them, in their order, in a thread, before they come.

        Raises Aborted when it changed meanwhile, Unavailable.
        """


class Place(Protocol):
    """Where the files of workspaces are. PathRefused for what is no plain file, in whatever is asked for."""

    async def find(self, home: Home, names: Names) -> Found | None:
        """A file or folder; None when there is none. Raises PathRefused."""

    async def list(self, home: Home, names: Names, *, recursive: bool, after: str, limit: int) -> Listed:
        """What is in a folder (no names: the workspace itself), or all files below it; nothing if it is not there.

        Raises PathRefused.
        """

    def read(self, home: Home, names: Names) -> AbstractAsyncContextManager[Reading]:
        """A file to be read in the body. Raises FileNotFoundError, PathRefused."""

    def receive(self, home: Home, upload_id: UUID, offset: int) -> AbstractAsyncContextManager[Receiver]:
        """Go on with an upload: anew at 0, else only if the receiver then has that offset.

        Raises Aborted while another stream does.
        """

    async def received(self, home: Home, upload_id: UUID) -> int:
        """How many bytes of an upload are kept; what arrives after them is sent again."""

    async def publish(self, home: Home, upload_id: UUID, names: Names) -> Published:
        """Give a sealed upload its path, in place of what is there. Several may at once: each of them is told of it.

        Raises PathRefused; FileNotFoundError: it may have its path by now; Gone: it has not.
        """

    async def discard(self, home: Home, upload_id: UUID) -> None:
        """Throw away what there is of an upload."""

    async def remove(self, home: Home, names: Names) -> int | None:
        """Delete a file or an empty folder; how many bytes a file had.

        Raises PathRefused, FileNotFoundError, NotEmpty.
        """

    async def move(self, home: Home, names: Names, target: Names) -> Published:
        """Give a file another path, in place of what is there. Raises PathRefused, FileNotFoundError."""

    async def measure(self, home: Home) -> Measured:
        """Count all files."""

    async def clear(self, home: Home) -> bool:
        """Delete all files of a workspace, and what is kept of its uploads; whether there was anything."""

    async def close(self) -> None:
        """Let go of what is held open."""


class Gone(FileNotFoundError):
    """What was uploaded is neither aside nor in its place."""


class NotEmpty(Exception):
    """The folder has something in it."""
