"""The group-commit writer: durable, merged, fenced, bounded, and unharmed by outages."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import LeaseLost, ResourceExhausted, StationmasterError, Unavailable
from stationmaster_server.events import store
from stationmaster_server.events.log import EventLog, LogSettings
from stationmaster_server.events.model import NewEvent

from tests.events.conftest import StartLog, make_stream
from tests.events.readers import LIMIT, eventually, sequences


def delta(text: str, key: str | None = "answer") -> NewEvent:
    return NewEvent("text_delta", {"text": text, "step": 1}, merge_key=key)


def noted(number: int = 0) -> NewEvent:
    return NewEvent("noted", {"number": number})


async def test_a_write_is_durable_when_its_future_is_done(
    log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    assert await log.write(tenant.organization_id, stream, noted(7), fence=fence) == 1
    (event,) = await log.read(tenant, stream, 0, 10)
    assert (event.sequence, event.kind, event.body) == (1, "noted", {"number": 7})


async def test_text_deltas_of_one_flush_become_one_event(
    log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    futures = [log.write(tenant.organization_id, stream, delta(text), fence=fence) for text in ("Hel", "lo ", "you")]
    assert await asyncio.gather(*futures) == [1, 1, 1]
    (event,) = await log.read(tenant, stream, 0, 10)
    assert event.body == {"text": "Hello you", "step": 1}


async def test_only_neighbours_of_the_same_kind_and_key_are_merged(
    log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    written = [delta("a"), delta("b"), noted(), delta("c"), delta("d", "other"), delta("e", None), delta("f", None)]
    futures = [log.write(tenant.organization_id, stream, event, fence=fence) for event in written]
    assert await asyncio.gather(*futures) == [1, 1, 2, 3, 4, 5, 6]
    events = await log.read(tenant, stream, 0, 10)
    assert [event.body.get("text") for event in events] == ["ab", None, "c", "d", "e", "f"]


async def test_one_flush_carries_what_queued_while_the_last_was_in_flight(
    database: Database, log: EventLog, tenant: Tenant
) -> None:
    fence = new_id()
    streams = [await make_stream(database, log, tenant, fence) for _ in range(50)]
    futures = [
        log.write(tenant.organization_id, stream, noted(number), fence=fence)
        for stream in streams
        for number in range(10)
    ]
    await asyncio.gather(*futures)
    async with database.system() as tx:
        assert await tx.fetchval("SELECT count(DISTINCT last_flush) FROM streams") == 1
        assert await tx.fetchval("SELECT count(DISTINCT xmin::text) FROM events") == 1


async def test_a_stalled_writer_cannot_write_after_its_replacement_started(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    await log.write(tenant.organization_id, stream, noted(), fence=fence)
    replacement = new_id()
    async with database.system() as tx:
        await log.set_fence(tx, tenant.organization_id, stream, replacement)
    with pytest.raises(LeaseLost):
        await log.write(tenant.organization_id, stream, noted(), fence=fence)
    assert await log.write(tenant.organization_id, stream, noted(), fence=replacement) == 2


async def test_without_a_fence_nobody_writes(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    async with database.system() as tx:
        await log.set_fence(tx, tenant.organization_id, stream, None)
    with pytest.raises(LeaseLost):
        await log.write(tenant.organization_id, stream, noted(), fence=fence)


async def test_a_lost_lease_fails_exactly_the_writes_that_lost_it(
    database: Database, log: EventLog, tenant: Tenant
) -> None:
    old, new = new_id(), new_id()
    streams = [await make_stream(database, log, tenant, new) for _ in range(5)]
    lost = [log.write(tenant.organization_id, stream, noted(), fence=old) for stream in streams[:3]]
    kept = [log.write(tenant.organization_id, stream, noted(), fence=new) for stream in streams]
    assert await asyncio.gather(*kept) == [1] * 5
    for future in lost:
        with pytest.raises(LeaseLost):
            await future


async def test_a_stream_that_somebody_holds_locked_does_not_hold_up_the_others(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    other = await make_stream(database, log, tenant, fence)
    async with asyncio.timeout(LIMIT):
        async with database.system() as tx:
            await log.append(tx, tenant.organization_id, stream, [noted(1)])
            waiting = [log.write(tenant.organization_id, stream, noted(2), fence=fence)]
            assert await log.write(tenant.organization_id, other, noted(), fence=fence) == 1
            waiting.append(log.write(tenant.organization_id, stream, noted(3), fence=fence))
            assert await log.write(tenant.organization_id, other, noted(), fence=fence) == 2
            assert not any(future.done() for future in waiting)
        assert await asyncio.gather(*waiting) == [2, 3]
    events = await log.read(tenant, stream, 0, 10)
    assert [event.body["number"] for event in events] == [1, 2, 3]


async def test_two_writers_over_the_same_streams_never_deadlock(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    logs = [await start_log(), await start_log()]
    fence = new_id()
    streams = [await make_stream(database, logs[0], tenant, fence) for _ in range(20)]
    futures = []
    for number in range(30):
        for log, order in zip(logs, (streams, streams[::-1]), strict=True):
            futures += [log.write(tenant.organization_id, each, noted(number), fence=fence) for each in order]
        await asyncio.sleep(0)
    await asyncio.gather(*futures)
    for each in streams:
        assert sequences(await logs[0].read(tenant, each, 0, 100)) == list(range(1, 61))


async def test_the_producer_that_waits_for_room_keeps_the_queue_bounded(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    log = await start_log(LogSettings(queue_size=8))
    fence = new_id()
    stream = await make_stream(database, log, tenant, fence)
    written = 0

    async def produce() -> None:
        nonlocal written
        for number in range(40):
            await log.room()
            last = log.write(tenant.organization_id, stream, noted(number), fence=fence)
            written += 1
        await last

    async with database.system() as tx:
        await tx.execute("SELECT FROM streams FOR UPDATE")
        producer = asyncio.create_task(produce())
        await asyncio.wait([producer], timeout=0.2)
        assert written == 8
    await producer
    assert [event.body["number"] for event in await log.read(tenant, stream, 0, 100)] == list(range(40))


async def test_the_producer_that_never_waits_is_refused_in_the_end(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    log = await start_log(LogSettings(queue_size=8))
    fence = new_id()
    stream = await make_stream(database, log, tenant, fence)
    futures = [log.write(tenant.organization_id, stream, noted(number), fence=fence) for number in range(8 * 4)]
    with pytest.raises(ResourceExhausted):
        log.write(tenant.organization_id, stream, noted(), fence=fence)
    assert await asyncio.gather(*futures) == list(range(1, len(futures) + 1))


async def test_close_flushes_what_waits(database: Database, start_log: StartLog, tenant: Tenant) -> None:
    log = await start_log()
    fence = new_id()
    stream = await make_stream(database, log, tenant, fence)
    futures = [log.write(tenant.organization_id, stream, noted(number), fence=fence) for number in range(10)]
    await log.close()
    assert await asyncio.gather(*futures) == list(range(1, 11))
    with pytest.raises(Unavailable):
        log.write(tenant.organization_id, stream, noted(), fence=fence)


async def test_a_producer_that_goes_away_does_not_disturb_the_flush(
    log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    gone = log.write(tenant.organization_id, stream, noted(1), fence=fence)
    kept = log.write(tenant.organization_id, stream, noted(2), fence=fence)
    gone.cancel()
    assert await kept == 2


async def test_an_event_that_cannot_be_stored_fails_alone(database: Database, log: EventLog, tenant: Tenant) -> None:
    fence = new_id()
    streams = [await make_stream(database, log, tenant, fence) for _ in range(7)]
    bad = NewEvent("no\x00kind", {})
    futures = [
        log.write(tenant.organization_id, stream, bad if number == 3 else noted(), fence=fence)
        for number, stream in enumerate(streams)
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [result for result in results if result != 1] == [results[3]]
    assert isinstance(results[3], StationmasterError)


@pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
async def test_an_outage_loses_and_doubles_nothing(
    database_url: str,
    log: EventLog,
    tenant: Tenant,
    stream: UUID,
    fence: UUID,
    monkeypatch: pytest.MonkeyPatch,
    committed: bool,
) -> None:
    """The backend dies under a flush: before it has run, or after its commit but before its answer."""
    real, tries = store.flush, 0
    administrator = await asyncpg.connect(database_url)

    async def breaks_once(tx: Transaction, *args: Any) -> list[store.Written | None]:
        nonlocal tries
        tries += 1
        if tries == 1:
            if committed:
                await real(tx, *args)
            await administrator.execute("SELECT pg_terminate_backend($1)", await tx.fetchval("SELECT pg_backend_pid()"))
        return await real(tx, *args)

    monkeypatch.setattr(store, "flush", breaks_once)
    futures = [log.write(tenant.organization_id, stream, noted(number), fence=fence) for number in range(3)]
    async with asyncio.timeout(LIMIT):
        assert await asyncio.gather(*futures) == [1, 2, 3]
        assert await log.write(tenant.organization_id, stream, noted(3), fence=fence) == 4
    events = await log.read(tenant, stream, 0, 100)
    assert [event.body["number"] for event in events] == [0, 1, 2, 3]
    await administrator.close()


_KILL = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%bumped%'
"""


async def test_backends_that_keep_dying_lose_and_double_nothing(
    database_url: str, log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    administrator = await asyncpg.connect(database_url)
    killed, written = 0, 0

    async def produce() -> None:
        nonlocal written
        while killed < 3 or written < 100:
            await log.write(tenant.organization_id, stream, noted(written), fence=fence)
            written += 1

    producer = asyncio.create_task(produce())
    async with asyncio.timeout(60):
        while not producer.done():
            killed += await administrator.fetchval(_KILL)
            await asyncio.sleep(0.03)
        await producer
    numbers: list[int] = []
    while events := await log.read(tenant, stream, len(numbers), 1000):
        numbers += [event.body["number"] for event in events]
    assert numbers == list(range(written))
    await administrator.close()


async def test_an_outage_that_outlasts_the_writers_patience_fails_every_write_that_waited(
    database: Database, start_log: StartLog, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await start_log(LogSettings(give_up_after=timedelta(milliseconds=200)))
    fence = new_id()
    stream = await make_stream(database, log, tenant, fence)
    real = store.flush

    async def away(*args: object) -> object:
        raise ConnectionError

    monkeypatch.setattr(store, "flush", away)
    first = log.write(tenant.organization_id, stream, noted(1), fence=fence)
    await eventually(lambda: log._writer._pending.size == 0)
    behind = log.write(tenant.organization_id, stream, noted(2), fence=fence)
    for future in (first, behind):
        with pytest.raises(Unavailable):
            await future
    monkeypatch.setattr(store, "flush", real)
    assert await log.write(tenant.organization_id, stream, noted(3), fence=fence) == 1


async def test_what_was_written_before_an_unexpected_error_is_not_written_again(
    database: Database, log: EventLog, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = new_id()
    streams = [await make_stream(database, log, tenant, fence) for _ in range(7)]
    real, tries = store.flush, 0

    async def fails_after_the_commit(tx: Transaction, *args: Any) -> list[store.Written | None]:
        nonlocal tries
        tries += 1
        written = await real(tx, *args)
        if tries == 1:
            raise ZeroDivisionError
        return written

    monkeypatch.setattr(store, "flush", fails_after_the_commit)
    futures = [log.write(tenant.organization_id, stream, noted(), fence=fence) for stream in streams]
    assert await asyncio.gather(*futures) == [1] * 7
    for stream in streams:
        assert sequences(await log.read(tenant, stream, 0, 10)) == [1]


async def test_close_waits_no_longer_than_its_grace_for_the_database(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    log = await start_log()
    fence = new_id()
    stream = await make_stream(database, log, tenant, fence)
    async with database.system() as tx:
        await tx.execute("SELECT FROM streams FOR UPDATE")
        future = log.write(tenant.organization_id, stream, noted(), fence=fence)
        async with asyncio.timeout(LIMIT):
            await log.close(timedelta(milliseconds=100))
        with pytest.raises(Unavailable):
            await future
