"""Watching a stream: replay meets live, slow readers, other servers, compaction, keepalives."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.events import store
from stationmaster_server.events.hub import QUEUE_LIMIT
from stationmaster_server.events.log import EventLog, LogSettings
from stationmaster_server.events.model import Batch, NewEvent

from tests.events.conftest import StartLog, make_stream
from tests.events.readers import LIMIT, collect, eventually, sequences

QUICK = LogSettings(keepalive=timedelta(milliseconds=100), look=timedelta(milliseconds=50))
NO_LOOK = LogSettings(look=timedelta(seconds=60))


def noted(number: int = 0) -> NewEvent:
    return NewEvent("noted", {"number": number})


async def append(database: Database, log: EventLog, tenant: Tenant, stream: UUID, count: int = 1) -> None:
    async with database.system() as tx:
        await log.append(tx, tenant.organization_id, stream, [noted(number) for number in range(count)])


async def live(batches: AsyncGenerator[Batch, None]) -> asyncio.Task[Batch]:
    """Begin to wait for the next batch."""
    task = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    return task


async def test_a_reader_gets_first_the_log_and_then_what_is_new(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID
) -> None:
    await append(database, log, tenant, stream, 3)
    async with asyncio.timeout(LIMIT), aclosing(log.watch(tenant, stream, 1)) as batches:
        assert sequences(list((await anext(batches)).events)) == [2, 3]
        following = await live(batches)
        await append(database, log, tenant, stream, 2)
        batch = await following
    assert sequences(list(batch.events)) == [4, 5]
    assert batch.last_sequence == 5


async def test_what_a_reader_saw_live_is_replayed_the_same(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    reader = asyncio.create_task(collect(log, tenant, stream, 0, 3))
    await append(database, log, tenant, stream)
    merged = NewEvent("text_delta", {"text": "a", "step": 1}, merge_key="k")
    await asyncio.gather(*(log.write(tenant.organization_id, stream, merged, fence=fence) for _ in range(3)))
    await log.write(tenant.organization_id, stream, noted(9), fence=fence)
    assert await reader == await log.read(tenant, stream, 0, 10)


async def test_a_drained_queue_is_one_batch_whose_events_all_watchers_share(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID
) -> None:
    async with aclosing(log.watch(tenant, stream, 0)) as one, aclosing(log.watch(tenant, stream, 0)) as two:
        waiting = [await live(one), await live(two)]
        await append(database, log, tenant, stream)
        await asyncio.wait(waiting, timeout=LIMIT)
        for _ in range(5):
            await append(database, log, tenant, stream)
        first, second = await anext(one), await anext(two)
    assert sequences(list(first.events)) == [2, 3, 4, 5, 6]
    assert all(mine is theirs for mine, theirs in zip(first.events, second.events, strict=True))


async def test_a_slow_reader_falls_back_to_the_log_and_loses_nothing(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID
) -> None:
    async with asyncio.timeout(LIMIT), aclosing(log.watch(tenant, stream, 0)) as batches:
        waiting = await live(batches)
        await append(database, log, tenant, stream)
        seen = list((await waiting).events)
        for _ in range(5):
            await append(database, log, tenant, stream, QUEUE_LIMIT // 2)
        total = 1 + 5 * (QUEUE_LIMIT // 2)
        while len(seen) < total:
            seen += (await anext(batches)).events
        following = await live(batches)
        await append(database, log, tenant, stream)
        seen += (await following).events
    assert sequences(seen) == list(range(1, total + 2))


async def test_an_append_larger_than_the_queue_reaches_a_live_reader(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID
) -> None:
    reader = asyncio.create_task(collect(log, tenant, stream, 0, 3 * QUEUE_LIMIT))
    await append(database, log, tenant, stream, 3 * QUEUE_LIMIT)
    assert sequences(await reader) == list(range(1, 3 * QUEUE_LIMIT + 1))


async def test_two_servers_on_one_database_wake_each_others_readers(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    here, there = await start_log(NO_LOOK), await start_log(NO_LOOK)
    fence = new_id()
    stream = await make_stream(database, here, tenant, fence)
    async with asyncio.timeout(LIMIT), aclosing(there.watch(tenant, stream, 0)) as batches:
        following = await live(batches)
        await append(database, here, tenant, stream)
        assert sequences(list((await following).events)) == [1]
        following = await live(batches)
        await here.write(tenant.organization_id, stream, noted(), fence=fence)
        assert sequences(list((await following).events)) == [2]


async def test_a_reader_gets_the_events_of_two_servers_in_order(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    logs = [await start_log(NO_LOOK), await start_log(NO_LOOK)]
    fence = new_id()
    stream = await make_stream(database, logs[0], tenant, fence)
    readers = [asyncio.create_task(collect(log, tenant, stream, 0, 200)) for log in logs]

    async def write(log: EventLog) -> None:
        for number in range(50):
            await log.write(tenant.organization_id, stream, noted(number), fence=fence)
            await append(database, log, tenant, stream)

    await asyncio.gather(*(write(log) for log in logs))
    for reader in readers:
        assert sequences(await reader) == list(range(1, 201))


async def test_a_lost_notification_only_delays_a_reader_until_the_next_look(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    writer, deaf = await start_log(), await start_log(LogSettings(look=timedelta(seconds=1)), hears=False)
    stream = await make_stream(database, writer, tenant)
    async with asyncio.timeout(LIMIT), aclosing(deaf.watch(tenant, stream, 0)) as batches:
        following = await live(batches)
        await eventually(lambda: bool(deaf._hub.cursors()))
        before = time.monotonic()
        await append(database, writer, tenant, stream)
        assert sequences(list((await following).events)) == [1]
    assert time.monotonic() - before < 1.5


async def test_the_bus_ignores_what_its_own_server_wrote(
    database: Database, start_log: StartLog, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await start_log(NO_LOOK), await start_log(NO_LOOK)
    stream = await make_stream(database, here, tenant)
    woken: dict[str, list[Any]] = {"here": [], "there": []}
    for name, log in (("here", here), ("there", there)):
        monkeypatch.setattr(log._hub, "behind", Recorder(woken[name]))
    readers = [asyncio.create_task(collect(log, tenant, stream, 0, 1)) for log in (here, there)]
    await eventually(lambda: all(log._hub.cursors() for log in (here, there)))
    await append(database, here, tenant, stream)
    await eventually(lambda: bool(woken["there"]))
    assert woken["here"] == []
    for reader in readers:
        reader.cancel()


class Recorder(set[UUID]):
    """Remembers what was put into the set of streams to be read."""

    def __init__(self, put: list[Any]) -> None:
        super().__init__()
        self.put = put

    def __ior__(self, other: Any) -> Recorder:  # type: ignore[override,misc]
        self.put.extend(other)
        self.update(other)
        return self


async def test_notifications_of_many_streams_are_split_at_the_limit(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    here, there = await start_log(NO_LOOK), await start_log(NO_LOOK)
    fence = new_id()
    streams = [new_id() for _ in range(1000)]
    async with database.system() as tx:
        for stream in streams:
            await here.create_stream(tx, tenant.organization_id, stream)
            await here.set_fence(tx, tenant.organization_id, stream, fence)
    readers = [asyncio.create_task(collect(there, tenant, stream, 0, 1)) for stream in streams[::100]]
    await eventually(lambda: len(there._hub.cursors()) == 10)
    await asyncio.gather(*(here.write(tenant.organization_id, each, noted(), fence=fence) for each in streams))
    for events in await asyncio.gather(*readers):
        assert sequences(events) == [1]


async def test_an_idle_reader_gets_keepalives_with_the_newest_sequence(
    database: Database, start_log: StartLog, tenant: Tenant
) -> None:
    log = await start_log(QUICK)
    stream = await make_stream(database, log, tenant)
    await append(database, log, tenant, stream, 2)
    async with asyncio.timeout(LIMIT), aclosing(log.watch(tenant, stream, 2)) as batches:
        assert await anext(batches) == Batch([], 2)
        assert await anext(batches) == Batch([], 2)


async def test_a_cursor_in_a_compacted_range_resumes_at_the_message(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID
) -> None:
    deltas = [NewEvent("text_delta", {"text": "x"})] * 8
    message = NewEvent("message_added", {"text": "x" * 8, "replaces": {"first": 2, "last": 9}})
    async with database.system() as tx:
        await log.append(tx, tenant.organization_id, stream, [noted(), *deltas, message, noted()])
    async with database.system() as tx:
        assert await log.compact(tx, tenant.organization_id, stream, 2, 9, ["text_delta"]) == 8
    assert sequences(await log.read(tenant, stream, 4, 10)) == [10, 11]
    await append(database, log, tenant, stream)
    assert sequences(await collect(log, tenant, stream, 4, 12)) == [10, 11, 12]
    assert sequences(await collect(log, tenant, stream, 0, 12)) == [1, 10, 11, 12]


async def test_compaction_keeps_durable_events(database: Database, log: EventLog, tenant: Tenant, stream: UUID) -> None:
    delta = NewEvent("text_delta", {"text": "x"})
    async with database.system() as tx:
        await log.append(tx, tenant.organization_id, stream, [delta, noted(), delta])
        await log.compact(tx, tenant.organization_id, stream, 1, 3, ["text_delta"])
    assert sequences(await log.read(tenant, stream, 0, 10)) == [2]


async def test_a_compacted_hole_at_the_end_of_the_log_is_no_gap(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(database, log, tenant, stream, 5)
    async with database.system() as tx:
        await log.compact(tx, tenant.organization_id, stream, 4, 5, ["noted"])
    reads = count_reads(monkeypatch)
    async with asyncio.timeout(LIMIT), aclosing(log.watch(tenant, stream, 0)) as batches:
        batch = await anext(batches)
        assert (sequences(list(batch.events)), batch.last_sequence) == ([1, 2, 3], 5)
        following = await live(batches)
        await append(database, log, tenant, stream)
        assert sequences(list((await following).events)) == [6]
    assert len(reads) == 1


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the cursors of every read of the log."""
    reads: list[int] = []
    real = store.read

    async def counted(tx: Any, cursors: Any, limit: int) -> Any:
        reads.extend(cursor.sequence for cursor in cursors)
        return await real(tx, cursors, limit)

    monkeypatch.setattr(store, "read", counted)
    return reads


async def test_closing_the_log_ends_its_readers(database: Database, start_log: StartLog, tenant: Tenant) -> None:
    log = await start_log(NO_LOOK)
    stream = await make_stream(database, log, tenant)

    async def read_to_the_end() -> list[Batch]:
        return [batch async for batch in log.watch(tenant, stream, 0)]

    reader = asyncio.create_task(read_to_the_end())
    await eventually(lambda: bool(log._hub.cursors()))
    await log.close()
    assert await asyncio.wait_for(reader, LIMIT) == []


async def test_a_reader_that_leaves_leaves_nothing_behind(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID
) -> None:
    async with aclosing(log.watch(tenant, stream, 0)) as batches:
        waiting = await live(batches)
        await append(database, log, tenant, stream)
        await waiting
        assert log._hub.watches(stream)
    assert not log._hub.watches(stream)


@pytest.mark.long
async def test_a_reader_that_stops_reading_during_100000_events_loses_nothing_and_costs_nothing(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID, fence: UUID
) -> None:
    async with aclosing(log.watch(tenant, stream, 0)) as batches:
        waiting = await live(batches)
        await append(database, log, tenant, stream)
        seen = sequences(list((await waiting).events))
        tracemalloc.start()
        await write_many(log, tenant, stream, fence, 10_000)
        before = tracemalloc.get_traced_memory()[0]
        await write_many(log, tenant, stream, fence, 90_000)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown < 1_000_000
        while len(seen) < 100_001:
            seen += sequences(list((await anext(batches)).events))
    assert seen == list(range(1, 100_002))


async def write_many(log: EventLog, tenant: Tenant, stream: UUID, fence: UUID, count: int) -> None:
    for number in range(count):
        await log.room()
        last = log.write(tenant.organization_id, stream, noted(number), fence=fence)
        if number % 500 == 0:
            await last
    await last
