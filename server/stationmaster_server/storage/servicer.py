"""StorageService: messages in, the service, messages out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from stationmaster.v1 import storage_pb2 as pb
from stationmaster.v1 import storage_pb2_grpc

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.storage import convert_archives as archives
from stationmaster_server.storage import convert_files as files
from stationmaster_server.storage.archives.making import Making
from stationmaster_server.storage.archives.model import Archive
from stationmaster_server.storage.archives.restoring import Restoring
from stationmaster_server.storage.archives.running import Running
from stationmaster_server.storage.archives.service import Archives
from stationmaster_server.storage.convert import REPORT_NAME, piece_to_proto, report_to_proto
from stationmaster_server.storage.files import Files
from stationmaster_server.storage.service import StorageService
from stationmaster_server.storage.uploads import Uploads
from stationmaster_server.storage.usage import Usage
from stationmaster_server.wire.caller import caller_of, current_caller
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class FileServices:
    """What serves the files of workspaces."""

    files: Files
    uploads: Uploads
    usage: Usage


@dataclass(frozen=True, slots=True)
class ArchiveServices:
    """What serves archives, and how long these are kept."""

    archives: Archives
    making: Making
    restoring: Restoring
    running: Running
    retention: timedelta


class StorageServicer(storage_pb2_grpc.StorageServiceServicer):
    """The methods of StorageService."""

    def __init__(
        self,
        service: StorageService,
        file_services: FileServices,
        archive_services: ArchiveServices,
        tokens: PageTokens,
    ) -> None:
        self._service = service
        self._files = file_services.files
        self._uploads = file_services.uploads
        self._usage = file_services.usage
        self._kept = archive_services
        self._tokens = tokens

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: Context) -> pb.Workspace:
        """What a workspace holds."""
        workspace = await self._usage.workspace(current_caller(), parse(files.WORKSPACE, request.name))
        return files.workspace_to_proto(workspace)

    async def ListFiles(self, request: pb.ListFilesRequest, context: Context) -> pb.ListFilesResponse:
        """A page of files."""
        page = await self._files.list_files(
            current_caller(),
            parse(files.WORKSPACE, request.parent, field="parent"),
            request.folder,
            request.filter,
            self._tokens.read(request),
            recursive=request.recursive,
        )
        found, token = self._tokens.page(request, page, files.file_to_proto)
        return pb.ListFilesResponse(files=found, next_page_token=token)

    async def StatFile(self, request: pb.StatFileRequest, context: Context) -> pb.File:
        """A file."""
        return files.file_to_proto(await self._files.stat(current_caller(), *files.parse_file_name(request.name)))

    async def UploadFile(self, requests: AsyncIterator[pb.UploadFileRequest], context: Context) -> pb.File:
        """The file that came."""
        first = await anext(requests, None)
        if first is None or not first.HasField("header"):
            raise InvalidArgument.field("header", "must be in the first message")
        if first.data:
            raise InvalidArgument.field("data", "must not be in the first message")
        caller = caller_of(files.without_offset(first))
        header = files.header_from_proto(caller.tenant.organization_id, first.header)
        return files.file_to_proto(await self._uploads.upload(caller, header, _data(first, requests)))

    async def GetUpload(self, request: pb.GetUploadRequest, context: Context) -> pb.Upload:
        """How far an upload is."""
        return files.upload_to_proto(*await self._uploads.get(current_caller(), *files.parse_upload_name(request.name)))

    async def CancelUpload(self, request: pb.CancelUploadRequest, context: Context) -> Empty:
        """Nothing."""
        await self._uploads.cancel(caller_of(request), *files.parse_upload_name(request.name))
        return Empty()

    async def DownloadFile(
        self, request: pb.DownloadFileRequest, context: Context
    ) -> AsyncGenerator[pb.DownloadFileResponse, None]:
        """The bytes of a file."""
        session_id, path = files.parse_file_name(request.name)
        pieces = self._files.download(current_caller(), session_id, path, request.offset, request.etag)
        async with aclosing(pieces):
            async for piece in pieces:
                yield files.file_piece_to_proto(piece)

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Context) -> Empty:
        """Nothing."""
        await self._files.delete(caller_of(request), *files.parse_file_name(request.name), request.etag)
        return Empty()

    async def MoveFile(self, request: pb.MoveFileRequest, context: Context) -> pb.File:
        """The file under its new path."""
        session_id, path = files.parse_file_name(request.name)
        moved = await self._files.move(
            caller_of(request), session_id, path, request.destination, request.etag, overwrite=request.overwrite
        )
        return files.file_to_proto(moved)

    async def ArchiveWorkspace(self, request: pb.ArchiveWorkspaceRequest, context: Context) -> pb.Archive:
        """The archive that was made."""
        with self._kept.running.one():
            archive = await self._kept.making.archive(
                caller_of(request),
                parse(files.WORKSPACE, request.name),
                archives.format_from_proto(request.format),
                overwrite=request.overwrite,
            )
        return archives.archive_to_proto(archive, self._kept.retention)

    async def RestoreWorkspace(self, request: pb.RestoreWorkspaceRequest, context: Context) -> pb.Workspace:
        """The workspace, with what was restored."""
        caller, session_id = caller_of(request), parse(files.WORKSPACE, request.name)
        source = archives.source_from_proto(request)
        with self._kept.running.one():
            await self._kept.restoring.restore(caller, session_id, source, overwrite=request.overwrite)
        return files.workspace_to_proto(await self._usage.workspace(caller, session_id))

    async def GetArchive(self, request: pb.GetArchiveRequest, context: Context) -> pb.Archive:
        """One archive."""
        return self._archive(await self._kept.archives.get(current_caller(), parse(archives.ARCHIVE, request.name)))

    async def ListArchives(self, request: pb.ListArchivesRequest, context: Context) -> pb.ListArchivesResponse:
        """A page of archives."""
        asked = self._tokens.read(request)
        page = await self._kept.archives.list_archives(current_caller(), request.filter, request.order_by, asked)
        found, token = self._tokens.page(request, page, self._archive)
        return pb.ListArchivesResponse(archives=found, next_page_token=token)

    async def DownloadArchive(
        self, request: pb.DownloadArchiveRequest, context: Context
    ) -> AsyncGenerator[pb.DownloadArchiveResponse, None]:
        """The bytes of an archive."""
        session_id = parse(archives.ARCHIVE, request.name)
        pieces = self._kept.archives.download(current_caller(), session_id, request.offset, request.etag)
        async with aclosing(pieces):
            async for piece in pieces:
                yield archives.archive_piece_to_proto(piece, self._kept.retention)

    async def DeleteArchive(self, request: pb.DeleteArchiveRequest, context: Context) -> Empty:
        """Nothing."""
        await self._kept.archives.delete(caller_of(request), parse(archives.ARCHIVE, request.name), request.etag)
        return Empty()

    async def CleanupArchives(self, request: pb.CleanupArchivesRequest, context: Context) -> pb.CleanupArchivesResponse:
        """What was deleted."""
        older_than = request.older_than.ToTimedelta() if request.HasField("older_than") else None
        cleaned = await self._kept.archives.clean_up(
            caller_of(request), request.filter, older_than, only_tell=request.validate_only
        )
        return archives.cleaned_to_proto(cleaned)

    def _archive(self, archive: Archive) -> pb.Archive:
        return archives.archive_to_proto(archive, self._kept.retention)

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.StorageUsage:
        """What is stored of a user or an organization."""
        subject_id, organization = files.parse_usage_name(request.name)
        usage = await self._usage.of(current_caller(), subject_id, organization=organization)
        return files.storage_usage_to_proto(request.name, usage)

    async def GetReport(self, request: pb.GetReportRequest, context: Context) -> pb.Report:
        """One report."""
        return report_to_proto(await self._service.get_report(current_caller(), parse(REPORT_NAME, request.name)))

    async def ListReports(self, request: pb.ListReportsRequest, context: Context) -> pb.ListReportsResponse:
        """A page of reports."""
        asked = self._tokens.read(request)
        page = await self._service.list_reports(current_caller(), request.filter, request.order_by, asked)
        reports, token = self._tokens.page(request, page, report_to_proto)
        return pb.ListReportsResponse(reports=reports, next_page_token=token)

    async def DownloadReport(
        self, request: pb.DownloadReportRequest, context: Context
    ) -> AsyncGenerator[pb.DownloadReportResponse, None]:
        """The bytes of a report."""
        report_id = parse(REPORT_NAME, request.name)
        async with aclosing(self._service.download_report(current_caller(), report_id, request.offset)) as pieces:
            async for piece in pieces:
                yield piece_to_proto(piece)


async def _data(first: pb.UploadFileRequest, requests: AsyncIterator[pb.UploadFileRequest]) -> AsyncIterator[bytes]:
    """The bytes. A connection that breaks may look like the end of the stream: only what was announced ends a file."""
    last = first.last
    async for request in requests:
        if request.HasField("header"):
            raise InvalidArgument.field("header", "must be in the first message only")
        if last:
            raise InvalidArgument.field("last", "another message came after the last one")
        yield request.data
        last = request.last
    if not last and not first.header.HasField("size_bytes"):
        raise InvalidArgument.field("last", "the stream broke off: none of its messages was the last one")
