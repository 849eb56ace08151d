"""Reports: who may read which, and how."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.errors import InvalidArgument, NotFound
from stationmaster_server.identity.model import owner_scope
from stationmaster_server.storage import store
from stationmaster_server.storage.model import PIECE_BYTES, Piece, ReportFormat, StoredReport, report_name

T = TypeVar("T")

LISTING = Listing(
    {
        "execution": Field("('executions/' || r.execution_id::text)", str),
        "title": Field("r.title", str),
        "format": Field("r.format", ReportFormat),
        "size_bytes": Field("r.size_bytes", int),
        "owner": Field("('users/' || r.user_id)", str),
        "create_time": Field("r.created_at", datetime),
    },
    key="r.id",
    default_order="create_time desc",
)


class StorageService:
    """Reads what is stored. Members see their own, owners and admins all of their organization."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_report(self, caller: Caller, report_id: UUID) -> StoredReport:
        """One report. Raises NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            found = await store.get(tx, caller.tenant.organization_id, owner_scope(caller), report_id)
        return _found(found, report_id)

    async def list_reports(
        self, caller: Caller, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[StoredReport]:
        """A page of reports, newest first by default. Raises InvalidArgument."""
        clause = LISTING.sql(filter_text, order_by, page, start=3)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await store.list_reports(tx, caller.tenant.organization_id, owner_scope(caller), clause)

    async def download_report(self, caller: Caller, report_id: UUID, offset: int) -> AsyncGenerator[Piece, None]:
        """The bytes of a report from an offset on, one piece in memory at a time, none while a transaction is open.

        Raises NotFound, also when the report is deleted meanwhile, and InvalidArgument for an offset past the end.
        """
        report = await self.get_report(caller, report_id)
        if offset > report.size_bytes:
            raise InvalidArgument.field("offset", f"is past the end: the report has {report.size_bytes} bytes")
        if offset == report.size_bytes:
            yield Piece(report, offset, b"")
        first: StoredReport | None = report
        while offset < report.size_bytes:
            number, skipped = divmod(offset, PIECE_BYTES)
            data = (await self._piece(caller, report_id, number))[skipped:]
            if not data:
                raise RuntimeError(f"piece {number} of {report_name(report_id)} is shorter than it was stored")
            yield Piece(first, offset, data)
            first = None
            offset += len(data)

    async def _piece(self, caller: Caller, report_id: UUID, number: int) -> bytes:
        async with self._database.tenant(caller.tenant, read=True) as tx:
            data = await store.piece(tx, caller.tenant.organization_id, report_id, number)
        return _found(data, report_id)


def _found(found: T | None, report_id: UUID) -> T:
    if found is None:
        raise NotFound("Report", report_name(report_id))
    return found
