"""Reports of executions: lists, and downloads that resume by themselves and are checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Unpack

from grpc import aio
from stationmaster.v1 import storage_pb2, storage_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.errors import DataLoss, StationmasterError, Unavailable
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query
from stationmaster_client.stream import EventStream, Interruption


class Reports:
    """`reports/…`. Every method takes the name or the bare id."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = storage_pb2_grpc.StorageServiceStub(calls.channel)

    async def get(self, name: str) -> storage_pb2.Report:
        """Return what is known of one report."""
        return await self._calls.unary(self._stub.GetReport, storage_pb2.GetReportRequest(name=full("reports", name)))

    def list(self, **query: Unpack[Query]) -> Listing[storage_pb2.Report, storage_pb2.ListReportsResponse]:
        """List reports, newest first: those of one execution with `filter='execution = "executions/…"'`."""

        async def fetch(token: str) -> storage_pb2.ListReportsResponse:
            request = storage_pb2.ListReportsRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListReports, request)

        return Listing(fetch, lambda page: page.reports)

    def download(
        self,
        name: str,
        offset: int = 0,
        *,
        patience: timedelta | None = None,
        on_interruption: Callable[[Interruption], None] | None = None,
    ) -> EventStream[bytes]:
        """The bytes of a report from `offset` on, piece by piece; a broken connection is resumed where it broke.

        What is read from the first byte on is checked at its end: DataLoss is raised when it is not what was stored.
        """
        request = storage_pb2.DownloadReportRequest(name=full("reports", name), offset=offset)
        source = ReportSource(request, lambda current: self._calls.stream(self._stub.DownloadReport, current))
        return EventStream(source, patience=patience, on_interruption=on_interruption)

    async def read(self, name: str) -> bytes:
        """The whole report, checked. Raises Unavailable when the server stays away for the client's timeout."""
        async with self.download(name, patience=self._calls.timeout) as pieces:
            return b"".join([piece async for piece in pieces])


class ReportSource:
    """The bytes of a report after those that were taken; its sequence is their number."""

    def __init__(
        self,
        request: storage_pb2.DownloadReportRequest,
        download: Callable[[storage_pb2.DownloadReportRequest], aio.UnaryStreamCall[Any, Any]],
    ) -> None:
        self.last_sequence = request.offset
        self.finished = False
        self._request = request
        self._download = download
        self._sum = hashlib.sha256() if request.offset == 0 else None
        self._report: storage_pb2.Report | None = None

    def open(self) -> aio.UnaryStreamCall[Any, Any]:
        """Ask for what is missing."""
        return self._download(storage_pb2.DownloadReportRequest(name=self._request.name, offset=self.last_sequence))

    def take(self, batch: storage_pb2.DownloadReportResponse) -> Sequence[bytes]:
        """The piece, if it is the next one."""
        if batch.HasField("report"):
            self._report = batch.report
        if batch.offset != self.last_sequence:
            raise DataLoss(f"the server sent the bytes from {batch.offset} on instead of {self.last_sequence}")
        if self._sum is not None:
            self._sum.update(batch.data)
        self.last_sequence += len(batch.data)
        return [batch.data] if batch.data else []

    def must_reopen(self) -> bool:
        """Pieces that are missing are noticed at once."""
        return False

    def end(self) -> StationmasterError | None:
        """The server has sent everything; whether that is everything can be told."""
        if self._report is None or self.last_sequence < self._report.size_bytes:
            return Unavailable("the download ended before the report did")
        if self._sum is not None and self._sum.hexdigest() != self._report.sha256:
            return DataLoss(f"what was downloaded of {self._report.name} is not what was stored: download it again")
        self.finished = True
        return None
