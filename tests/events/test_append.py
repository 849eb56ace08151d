"""Appending within a transaction, and reading what was appended."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import InvalidArgument, LeaseLost, NotFound
from stationmaster_server.events.log import EventLog
from stationmaster_server.events.model import NewEvent

from tests.events.conftest import StartLog, make_stream
from tests.events.readers import collect, sequences


def noted(number: int) -> NewEvent:
    return NewEvent("noted", {"number": number})


async def test_sequences_start_at_one_and_have_no_holes(database: Database, log: EventLog, tenant: Tenant) -> None:
    stream = await make_stream(database, log, tenant)
    async with database.system() as tx:
        first = await log.append(tx, tenant.organization_id, stream, [noted(1), noted(2)])
        second = await log.append(tx, tenant.organization_id, stream, [noted(3)])
    assert sequences(first + second) == [1, 2, 3]
    assert await log.read(tenant, stream, 0, 10) == first + second


async def test_a_rollback_leaves_no_hole(database: Database, log: EventLog, tenant: Tenant) -> None:
    stream = await make_stream(database, log, tenant)
    with suppress(ZeroDivisionError):
        async with database.system() as tx:
            await log.append(tx, tenant.organization_id, stream, [noted(1)])
            raise ZeroDivisionError
    async with database.system() as tx:
        events = await log.append(tx, tenant.organization_id, stream, [noted(2)])
    assert sequences(events) == [1]


async def test_sequences_have_no_holes_under_concurrent_appends_of_which_some_roll_back(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    logs = [await start_log(), await start_log()]
    stream = await make_stream(database, logs[0], tenant)

    async def append(number: int) -> None:
        async with database.system() as tx:
            await logs[number % 2].append(tx, tenant.organization_id, stream, [noted(number)] * (1 + number % 3))
            if number % 5 == 0:
                raise ZeroDivisionError

    await asyncio.gather(*(append(number) for number in range(60)), return_exceptions=True)
    expected = sum(1 + number % 3 for number in range(60) if number % 5)
    assert sequences(await logs[0].read(tenant, stream, 0, 1000)) == list(range(1, expected + 1))


async def test_an_event_reaches_no_reader_before_its_commit(database: Database, log: EventLog, tenant: Tenant) -> None:
    stream = await make_stream(database, log, tenant)
    reader = asyncio.create_task(collect(log, tenant, stream, 0, 1))
    async with database.system() as tx:
        await log.append(tx, tenant.organization_id, stream, [noted(1)])
        await asyncio.wait([reader], timeout=0.1)
        assert not reader.done()
    assert sequences(await reader) == [1]


async def test_an_append_under_another_fence_loses_its_lease(database: Database, log: EventLog, tenant: Tenant) -> None:
    fence = new_id()
    stream = await make_stream(database, log, tenant, fence)
    async with database.system() as tx:
        await log.append(tx, tenant.organization_id, stream, [noted(1)], fence=fence)
    with pytest.raises(LeaseLost):
        async with database.system() as tx:
            await log.append(tx, tenant.organization_id, stream, [noted(2)], fence=new_id())
    assert len(await log.read(tenant, stream, 0, 10)) == 1


async def test_streams_are_handed_over_with_an_event_each_and_only_the_new_fence_writes(
    database: Database, log: EventLog, tenant: Tenant
) -> None:
    old, new = new_id(), new_id()
    streams = [await make_stream(database, log, tenant, old) for _ in range(3)]
    reader = asyncio.create_task(collect(log, tenant, streams[2], 0, 2))
    async with database.system() as tx:
        await log.append(tx, tenant.organization_id, streams[0], [noted(0)])
        last = {stream: noted(number) for number, stream in enumerate(streams, 1)}
        await log.hand_over(tx, tenant.organization_id, {**last, new_id(): noted(9)}, new)
    for number, stream in enumerate(streams, 1):
        assert (await log.read(tenant, stream, 0, 10))[-1].body == {"number": number}
        with pytest.raises(LeaseLost):
            await log.write(tenant.organization_id, stream, noted(4), fence=old)
        await log.write(tenant.organization_id, stream, noted(5), fence=new)
    assert [sequences(await log.read(tenant, stream, 0, 10)) for stream in streams] == [[1, 2, 3], [1, 2], [1, 2]]
    assert sequences(await reader) == [1, 2]


async def test_a_stream_that_does_not_exist_is_not_found(database: Database, log: EventLog, tenant: Tenant) -> None:
    for refused in (
        log.read(tenant, new_id(), 0, 10),
        collect(log, tenant, new_id(), 0, 1),
    ):
        with pytest.raises(NotFound):
            await refused
    async with database.system() as tx:
        with pytest.raises(NotFound):
            await log.append(tx, tenant.organization_id, new_id(), [noted(1)])
        with pytest.raises(NotFound):
            await log.set_fence(tx, tenant.organization_id, new_id(), None)


async def test_somebody_elses_stream_is_not_found(database: Database, log: EventLog, tenant: Tenant) -> None:
    stream = await make_stream(database, log, tenant)
    stranger = Tenant(new_id(), new_id())
    with pytest.raises(NotFound):
        await log.read(stranger, stream, 0, 10)
    with pytest.raises(NotFound):
        await collect(log, stranger, stream, 0, 1)


async def test_a_cursor_past_the_end_is_refused(database: Database, log: EventLog, tenant: Tenant) -> None:
    stream = await make_stream(database, log, tenant)
    with pytest.raises(InvalidArgument, match="ends at 0"):
        await collect(log, tenant, stream, 5, 6)


async def test_a_body_is_read_as_it_was_written(database: Database, log: EventLog, tenant: Tenant) -> None:
    stream = await make_stream(database, log, tenant)
    body = {"z": 1, "a": [None, True, 1.5, "é 漢 \x00 \U0001f600"], "half": "\ud83d", "nested": {"b": {}, "a": []}}
    async with database.system() as tx:
        await log.append(tx, tenant.organization_id, stream, [NewEvent("noted", body)])
    (event,) = await log.read(tenant, stream, 0, 1)
    assert event.body == body
    assert list(event.body) == list(body)


async def test_a_tenant_transaction_appends_and_only_to_its_own_streams(
    database: Database, log: EventLog, tenant: Tenant
) -> None:
    stream = await make_stream(database, log, tenant)
    async with database.tenant(tenant) as tx:
        tx.audited = True
        await log.append(tx, tenant.organization_id, stream, [noted(1)])
    stranger = Tenant(new_id(), new_id())
    async with database.tenant(stranger) as tx:
        tx.audited = True
        with pytest.raises(NotFound):
            await log.append(tx, tenant.organization_id, stream, [noted(2)])
    assert len(await log.read(tenant, stream, 0, 10)) == 1
