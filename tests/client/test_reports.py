"""Reports by the client: lists, downloads over broken connections, and what was changed on the way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from stationmaster_client import Client, SyncClient, errors
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.storage.model import PIECE_BYTES, ReportFormat, StoredReport

from tests.client.relay import relaying
from tests.fixtures.reports import deposit
from tests.fixtures.server import RunningServer
from tests.storage.test_service import tenant_of

DATA = hashlib.shake_256(b"a report").digest(5 * PIECE_BYTES + 4321)


@pytest_asyncio.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    """The administrator's client."""
    async with Client.connect(server.target, server.admin_key, insecure=True) as client:
        yield client


@pytest_asyncio.fixture
async def me(client: Client) -> Tenant:
    """The administrator."""
    who = await client.whoami()
    return tenant_of(who.organization.name, who.user.name)


@pytest_asyncio.fixture
async def report(database: Database, me: Tenant) -> StoredReport:
    """A report of several pieces."""
    return await deposit(database, me, DATA, ReportFormat.PDF, "Winter timetable")


async def test_a_report_is_found_and_read(client: Client, report: StoredReport) -> None:
    (found,) = [each async for each in client.reports.list(filter="format = PDF")]
    assert found == await client.reports.get(str(report.id))
    assert await client.reports.read(found.name) == DATA


async def test_a_download_survives_cuts_of_its_connection(server: RunningServer, report: StoredReport) -> None:
    async with relaying(server.target, cut_after=400_000) as relay:
        async with Client.connect(relay.target, server.admin_key, insecure=True) as client:
            assert await client.reports.read(str(report.id)) == DATA
        assert relay.cuts >= 2


async def test_a_download_goes_on_from_any_byte(client: Client, report: StoredReport) -> None:
    async with client.reports.download(str(report.id), len(DATA) - 1000) as pieces:
        assert b"".join([piece async for piece in pieces]) == DATA[-1000:]


async def test_bytes_that_are_not_those_that_were_stored_are_noticed(
    client: Client, database: Database, report: StoredReport
) -> None:
    async with database.system() as tx:
        await tx.execute("UPDATE report_pieces SET data = set_byte(data, 7, 1) WHERE number = 2")
    with pytest.raises(errors.DataLoss, match="is not what was stored"):
        await client.reports.read(str(report.id))


async def test_a_report_that_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(errors.NotFound):
        await client.reports.read("01234567-89ab-7def-8123-456789abcdef")


async def test_blocking_code_reads_reports_as_well(server: RunningServer, report: StoredReport) -> None:
    def blocking() -> bytes:
        with SyncClient.connect(server.target, server.admin_key, insecure=True) as client:
            assert [each.title for each in client.reports.list()] == ["Winter timetable"]
            return client.reports.read(str(report.id))

    assert await asyncio.to_thread(blocking) == DATA
