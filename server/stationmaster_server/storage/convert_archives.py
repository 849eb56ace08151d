"""Archives of workspaces: protobuf to model and back."""

from __future__ import annotations

from datetime import timedelta

from stationmaster.v1 import storage_pb2 as pb

from stationmaster_server.storage.archives.model import Archive, ArchiveFormat, ArchivePiece, Cleaned, archive_name
from stationmaster_server.storage.archives.sources import Asked
from stationmaster_server.storage.convert_files import parse_file_name
from stationmaster_server.wire.fields import timestamp
from stationmaster_server.wire.names import parse

ARCHIVE = "archives/{session}"


def format_from_proto(value: pb.ArchiveFormat.ValueType) -> ArchiveFormat:
    """How to compress."""
    if value == pb.ARCHIVE_FORMAT_UNSPECIFIED:
        return ArchiveFormat.TAR_GZ
    return ArchiveFormat(pb.ArchiveFormat.Name(value).removeprefix("ARCHIVE_FORMAT_"))


def source_from_proto(request: pb.RestoreWorkspaceRequest) -> Asked:
    """What is to be restored. Raises InvalidArgument."""
    if request.source.startswith("archives/"):
        return Asked(parse(ARCHIVE, request.source, field="source"))
    return Asked(*parse_file_name(request.source, "source"))


def archive_to_proto(archive: Archive, retention: timedelta) -> pb.Archive:
    """An archive as its message."""
    return pb.Archive(
        name=archive_name(archive.session_id),
        session=f"sessions/{archive.session_id}",
        owner=f"users/{archive.user_id}",
        format=pb.ArchiveFormat.Value(f"ARCHIVE_FORMAT_{archive.format.name}"),
        size_bytes=archive.size_bytes,
        content_bytes=archive.content_bytes,
        file_count=archive.file_count,
        sha256=archive.sha256,
        etag=archive.etag,
        create_time=timestamp(archive.created_at),
        expire_time=timestamp(archive.created_at + retention),
    )


def archive_piece_to_proto(piece: ArchivePiece, retention: timedelta) -> pb.DownloadArchiveResponse:
    """A piece of a download as its message."""
    archive = None if piece.archive is None else archive_to_proto(piece.archive, retention)
    return pb.DownloadArchiveResponse(archive=archive, offset=piece.offset, data=piece.data)


def cleaned_to_proto(cleaned: Cleaned) -> pb.CleanupArchivesResponse:
    """What a clean-up did."""
    return pb.CleanupArchivesResponse(
        deleted_count=cleaned.count, freed_bytes=cleaned.size_bytes, sample=cleaned.sample
    )
