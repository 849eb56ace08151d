"""StorageService on a real server: who reads which reports, and downloads that resume."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import grpc
import pytest
import pytest_asyncio
from stationmaster.v1 import identity_pb2, storage_pb2
from stationmaster.v1.identity_pb2_grpc import IdentityServiceStub
from stationmaster.v1.storage_pb2_grpc import StorageServiceStub
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.storage.model import PIECE_BYTES, ReportFormat

from tests.contract.world import code_of, reason_of
from tests.fixtures.reports import deposit
from tests.fixtures.server import RunningServer

DATA = b"".join(number.to_bytes(4, "big") for number in range(3 * PIECE_BYTES // 4 + 25))


@pytest_asyncio.fixture
async def channel(server: RunningServer) -> AsyncIterator[grpc.aio.Channel]:
    """The administrator's channel."""
    async with server.channel() as channel:
        yield channel


@pytest_asyncio.fixture
async def me(channel: grpc.aio.Channel) -> Tenant:
    """The administrator."""
    identity: Any = IdentityServiceStub(channel)
    who = await identity.WhoAmI(identity_pb2.WhoAmIRequest())
    return tenant_of(who.organization.name, who.user.name)


def tenant_of(organization: str, user: str) -> Tenant:
    return Tenant(*(UUID(name.rpartition("/")[2]) for name in (organization, user)))


async def download(channel: grpc.aio.Channel, name: str, offset: int = 0) -> list[storage_pb2.DownloadReportResponse]:
    stub: Any = StorageServiceStub(channel)
    request = storage_pb2.DownloadReportRequest(name=name, offset=offset)
    return [piece async for piece in stub.DownloadReport(request)]


async def test_a_report_is_listed_read_and_downloaded_whole(
    database: Database, channel: grpc.aio.Channel, me: Tenant
) -> None:
    made = await deposit(database, me, DATA, ReportFormat.PDF, "Winter timetable")
    stub: Any = StorageServiceStub(channel)
    report = await stub.GetReport(storage_pb2.GetReportRequest(name=f"reports/{made.id}"))
    assert (report.title, report.format) == ("Winter timetable", storage_pb2.REPORT_FORMAT_PDF)
    assert (report.media_type, report.size_bytes) == ("application/pdf", len(DATA))
    assert (report.execution, report.owner) == (f"executions/{made.execution_id}", f"users/{me.user_id}")
    listed = await stub.ListReports(storage_pb2.ListReportsRequest())
    assert list(listed.reports) == [report]
    pieces = await download(channel, report.name)
    assert pieces[0].report == report
    assert not any(piece.HasField("report") for piece in pieces[1:])
    assert [piece.offset for piece in pieces] == [number * PIECE_BYTES for number in range(4)]
    whole = b"".join(piece.data for piece in pieces)
    assert whole == DATA
    assert hashlib.sha256(whole).hexdigest() == report.sha256


@pytest.mark.parametrize("offset", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 7, len(DATA) - 1])
async def test_a_download_resumes_at_any_byte(
    database: Database, channel: grpc.aio.Channel, me: Tenant, offset: int
) -> None:
    made = await deposit(database, me, DATA)
    pieces = await download(channel, f"reports/{made.id}", offset)
    assert pieces[0].offset == offset
    assert pieces[0].report.size_bytes == len(DATA)
    assert b"".join(piece.data for piece in pieces) == DATA[offset:]
    assert max(len(piece.data) for piece in pieces) <= PIECE_BYTES


async def test_a_download_from_the_end_brings_the_report_and_no_bytes(
    database: Database, channel: grpc.aio.Channel, me: Tenant
) -> None:
    made = await deposit(database, me, b"1234")
    (piece,) = await download(channel, f"reports/{made.id}", 4)
    assert (piece.offset, piece.data, piece.report.size_bytes) == (4, b"", 4)


async def test_an_offset_past_the_end_is_refused(database: Database, channel: grpc.aio.Channel, me: Tenant) -> None:
    made = await deposit(database, me, b"1234")
    with pytest.raises(grpc.aio.AioRpcError, match="past the end") as refused:
        await download(channel, f"reports/{made.id}", 5)
    assert (code_of(refused.value), reason_of(refused.value)) == ("INVALID_ARGUMENT", "INVALID_FIELD")


async def test_reports_are_filtered_ordered_and_paged(
    database: Database, channel: grpc.aio.Channel, me: Tenant
) -> None:
    made = [await deposit(database, me, b"x" * size, title=f"Report {size}") for size in (3, 1, 2)]
    pdf = await deposit(database, me, b"%PDF", ReportFormat.PDF, "As PDF")
    stub: Any = StorageServiceStub(channel)

    async def titles(**query: Any) -> list[str]:
        answer = await stub.ListReports(storage_pb2.ListReportsRequest(**query))
        return [report.title for report in answer.reports]

    assert await titles() == ["As PDF", "Report 2", "Report 1", "Report 3"]
    assert await titles(order_by="size_bytes") == ["Report 1", "Report 2", "Report 3", "As PDF"]
    assert await titles(filter="format = PDF") == ["As PDF"]
    assert await titles(filter=f'execution = "executions/{made[0].execution_id}"') == ["Report 3"]
    assert await titles(filter=f'owner = "users/{me.user_id}" AND title : "pdf"') == [pdf.title]
    first = await stub.ListReports(storage_pb2.ListReportsRequest(page_size=3))
    assert await titles(page_size=3, page_token=first.next_page_token) == ["Report 3"]


async def test_a_member_sees_their_own_reports_and_an_owner_all(
    server: RunningServer, database: Database, channel: grpc.aio.Channel, me: Tenant
) -> None:
    mine = await deposit(database, me)
    identity: Any = IdentityServiceStub(channel)
    user = identity_pb2.User(display_name="Member", role=identity_pb2.ROLE_MEMBER)
    member = await identity.CreateUser(identity_pb2.CreateUserRequest(user=user))
    key = identity_pb2.CreateApiKeyRequest(api_key=identity_pb2.ApiKey(user=member.name))
    secret = (await identity.CreateApiKey(key)).secret
    theirs = await deposit(database, tenant_of(f"organizations/{me.organization_id}", member.name))
    async with server.channel(secret) as members_channel:
        stub: Any = StorageServiceStub(members_channel)
        listed = await stub.ListReports(storage_pb2.ListReportsRequest())
        assert [report.name for report in listed.reports] == [f"reports/{theirs.id}"]
        for refused in (
            stub.GetReport(storage_pb2.GetReportRequest(name=f"reports/{mine.id}")),
            download(members_channel, f"reports/{mine.id}"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await refused
            assert code_of(raised.value) == "NOT_FOUND"
    listed = await StorageServiceStub(channel).ListReports(storage_pb2.ListReportsRequest())
    assert {report.name for report in listed.reports} == {f"reports/{mine.id}", f"reports/{theirs.id}"}


async def test_a_piece_that_lost_bytes_ends_the_download(
    database: Database, channel: grpc.aio.Channel, me: Tenant
) -> None:
    made = await deposit(database, me, DATA)
    async with database.system() as tx:
        await tx.execute("UPDATE report_pieces SET data = substr(data, 1, 100) WHERE number = 1")
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await download(channel, f"reports/{made.id}")
    assert code_of(ended.value) == "INTERNAL"
