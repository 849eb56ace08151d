"""StorageService: messages in, the service, messages out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
from stationmaster.v1 import storage_pb2 as pb
from stationmaster.v1 import storage_pb2_grpc

from stationmaster_server.storage.convert import REPORT_NAME, piece_to_proto, report_to_proto
from stationmaster_server.storage.service import StorageService
from stationmaster_server.wire.caller import current_caller
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]


class StorageServicer(storage_pb2_grpc.StorageServiceServicer):
    """The methods of StorageService."""

    def __init__(self, service: StorageService, tokens: PageTokens) -> None:
        self._service = service
        self._tokens = tokens

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
