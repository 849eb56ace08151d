"""Files of workspaces: protobuf to model and back."""

from __future__ import annotations

from uuid import UUID

from stationmaster.v1 import storage_pb2 as pb

from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.storage import paths
from stationmaster_server.storage.file_model import (
    Header,
    StorageUsage,
    StoredFile,
    Upload,
    WorkspaceInfo,
    file_name,
    upload_name,
    workspace_name,
)
from stationmaster_server.storage.files import FilePiece
from stationmaster_server.storage.places.place import Home
from stationmaster_server.wire.fields import timestamp
from stationmaster_server.wire.names import parse, parse_pair

WORKSPACE = "workspaces/{session}"
UPLOAD = "workspaces/{session}/uploads/{upload}"
_FILES = "/files/"
_USAGE = {"users": "users/{user}/storageUsage", "organizations": "organizations/{organization}/storageUsage"}


def parse_file_name(name: str, field: str = "name") -> tuple[UUID, str]:
    """The session and the path in a file's name; the path is yet to be looked at. Raises InvalidArgument."""
    workspace, found, path = name.partition(_FILES)
    if not found:
        raise InvalidArgument.field(field, "must have the form workspaces/{session}/files/{path}", Reason.INVALID_NAME)
    return parse(WORKSPACE, workspace, field=field), path


def parse_upload_name(name: str) -> tuple[UUID, UUID]:
    """The session and the upload. Raises InvalidArgument."""
    return parse_pair(UPLOAD, name, UUID, UUID)


def parse_usage_name(name: str) -> tuple[UUID, bool]:
    """Whose usage is asked for, and whether that is an organization. Raises InvalidArgument."""
    collection = name.partition("/")[0]
    return parse(_USAGE.get(collection, _USAGE["users"]), name), collection == "organizations"


def header_from_proto(organization_id: UUID, message: pb.UploadFileHeader) -> Header:
    """What is to be uploaded. Raises InvalidArgument."""
    session_id, path = parse_file_name(message.name, "header.name")
    paths.require(path, "header.name")
    size = message.size_bytes if message.HasField("size_bytes") else None
    if size is not None and message.offset > size:
        raise InvalidArgument.field("header.offset", f"is past the end: the file will have {size} bytes")
    home = Home(organization_id, session_id)
    return Header(home, path, size, message.sha256, message.etag, message.offset)


def without_offset(first: pb.UploadFileRequest) -> pb.UploadFileRequest:
    """The first message of an upload as it is whenever the upload is gone on with."""
    same = pb.UploadFileRequest()
    same.CopyFrom(first)
    same.header.ClearField("offset")
    return same


def file_to_proto(file: StoredFile) -> pb.File:
    """A file or folder as its message."""
    return pb.File(
        name=file_name(file.session_id, file.path),
        path=file.path,
        kind=pb.FILE_KIND_FOLDER if file.size_bytes is None else pb.FILE_KIND_FILE,
        size_bytes=file.size_bytes or 0,
        sha256=file.sha256,
        etag=file.etag,
        update_time=timestamp(file.changed_at),
    )


def file_piece_to_proto(piece: FilePiece) -> pb.DownloadFileResponse:
    """A piece of a download as its message."""
    file = None if piece.file is None else file_to_proto(piece.file)
    return pb.DownloadFileResponse(file=file, offset=piece.offset, data=piece.data, sha256=piece.sha256)


def upload_to_proto(upload: Upload, received: int) -> pb.Upload:
    """An upload as its message."""
    return pb.Upload(
        name=upload_name(upload.session_id, upload.id),
        file_name=file_name(upload.session_id, upload.path),
        state=pb.UploadState.Value(f"UPLOAD_STATE_{upload.state.name}"),
        received_bytes=received,
        size_bytes=upload.size_bytes,
        file=None if upload.file is None else file_to_proto(upload.file),
        create_time=timestamp(upload.created_at),
        expire_time=timestamp(upload.expires_at),
    )


def workspace_to_proto(workspace: WorkspaceInfo) -> pb.Workspace:
    """A workspace as its message."""
    return pb.Workspace(
        name=workspace_name(workspace.session_id),
        session=f"sessions/{workspace.session_id}",
        owner=f"users/{workspace.user_id}",
        used_bytes=workspace.used_bytes,
        file_count=workspace.file_count,
        reserved_bytes=workspace.reserved_bytes,
        measure_time=timestamp(workspace.measured_at),
    )


def storage_usage_to_proto(name: str, usage: StorageUsage) -> pb.StorageUsage:
    """What is stored as its message."""
    return pb.StorageUsage(
        name=name,
        used_bytes=usage.used_bytes,
        reserved_bytes=usage.reserved_bytes,
        max_bytes=usage.max_bytes,
        file_count=usage.file_count,
        workspace_count=usage.workspace_count,
        archive_bytes=usage.archive_bytes,
        archive_count=usage.archive_count,
    )
