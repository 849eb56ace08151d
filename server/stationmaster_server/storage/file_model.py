"""Files of workspaces, and what is done with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from stationmaster_server.storage.places.place import Found, Home


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file or folder (`size_bytes` None) of a workspace. `sha256` is empty where it is not known."""

    session_id: UUID
    path: str
    size_bytes: int | None
    sha256: str
    etag: str
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose session a workspace is of, and whether its files may still change."""

    user_id: UUID
    ended: bool


@dataclass(frozen=True, slots=True)
class WorkspaceInfo:
    """What a workspace holds."""

    session_id: UUID
    user_id: UUID
    used_bytes: int = 0
    file_count: int = 0
    reserved_bytes: int = 0
    measured_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StorageUsage:
    """What is stored of a user or an organization."""

    used_bytes: int
    reserved_bytes: int
    max_bytes: int | None
    file_count: int
    workspace_count: int
    archive_bytes: int
    archive_count: int


class UploadState(StrEnum):
    """How far an upload is."""

    RECEIVING = "RECEIVING"
    FINISHING = "FINISHING"
    DONE = "DONE"
    GIVEN_UP = "GIVEN_UP"
    """What arrived is about to be deleted; callers see no more of it."""


ANY = "*"
NONE = "none"
"""Etags of UploadFile for any file, and for no file."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is to be uploaded; `path` has gone through `paths.require`."""

    home: Home
    path: str
    size_bytes: int | None
    sha256: str
    etag: str
    offset: int


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload, as it is kept."""

    session_id: UUID
    id: UUID
    user_id: UUID
    path: str
    size_bytes: int | None
    sha256: str
    etag: str
    state: UploadState
    resumable: bool
    reserved_bytes: int
    writer: UUID
    file: StoredFile | None
    created_at: datetime
    expires_at: datetime


class ChangeKind(StrEnum):
    """What is done to a file."""

    PUT = "PUT"
    DELETE = "DELETE"
    MOVE = "MOVE"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a file that holds its paths until it is made. `decided`: it is audited, and must be made.

    One of a batch is made with all others of that.
    """

    home: Home
    id: UUID
    user_id: UUID
    kind: ChangeKind
    path: str
    target: str = ""
    upload_id: UUID | None = None
    etag: str = ""
    decided: bool = False
    batch_id: UUID | None = None


def stored(home: Home, found: Found, sha256: str = "") -> StoredFile:
    """What a place has found, with what is known of it besides."""
    return StoredFile(home.session_id, found.path, found.size_bytes, sha256, found.etag, found.changed_at)


def workspace_name(session_id: UUID) -> str:
    """`workspaces/{session}`."""
    return f"workspaces/{session_id}"


def file_name(session_id: UUID, path: str) -> str:
    """`workspaces/{session}/files/{path}`."""
    return f"{workspace_name(session_id)}/files/{path}"


def upload_name(session_id: UUID, upload_id: UUID) -> str:
    """`workspaces/{session}/uploads/{upload}`."""
    return f"{workspace_name(session_id)}/uploads/{upload_id}"
