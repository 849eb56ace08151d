"""Property: whatever is interleaved with whatever, a reader gets every event once and in order."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.events.bus import PostgresBus
from stationmaster_server.events.log import EventLog, LogSettings
from stationmaster_server.events.model import NewEvent

from tests.events.conftest import make_stream
from tests.events.readers import LIMIT

# What a writer does: through which of two servers, by the writer or in a transaction, how many events at once.
WRITES = st.lists(st.tuples(st.integers(0, 1), st.booleans(), st.sampled_from([1, 2, 7, 300])), min_size=1, max_size=12)
# What a reader does: on which server, from which cursor, how many turns of the loop it dawdles at each batch.
READERS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=6)


@given(writes=WRITES, readers=READERS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_replay_meets_live_without_a_gap_or_a_repeat(
    database_url: str, writes: list[tuple[int, bool, int]], readers: list[tuple[int, int, int]]
) -> None:
    asyncio.run(_meet(database_url, writes, readers))


async def _meet(url: str, writes: list[tuple[int, bool, int]], readers: list[tuple[int, int, int]]) -> None:
    database = await Database.connect(url, pool_size=4, system_pool_size=4, connect_timeout=timedelta(seconds=10))
    listeners = [Listener(database), Listener(database)]
    quiet = LogSettings(look=timedelta(seconds=60))
    logs = [EventLog(database, PostgresBus(listener), quiet) for listener in listeners]
    for listener, log in zip(listeners, logs, strict=True):
        await listener.start()
        await log.start()
    tenant, fence = Tenant(new_id(), new_id()), new_id()
    stream = await make_stream(database, logs[0], tenant, fence)
    async with database.system() as tx:
        await logs[0].append(tx, tenant.organization_id, stream, [NewEvent("noted", {})] * 5)
    total = 5 + sum(count for _, _, count in writes)
    try:
        async with asyncio.timeout(LIMIT):
            tasks = [
                asyncio.create_task(_read(logs[server], tenant, stream, cursor, total, dawdle))
                for server, cursor, dawdle in readers
            ]
            await asyncio.gather(
                *(
                    _write(database, logs[which], tenant, stream, fence, by_writer, count)
                    for which, by_writer, count in writes
                )
            )
            for (_, cursor, _), seen in zip(readers, await asyncio.gather(*tasks), strict=True):
                assert seen == list(range(cursor + 1, total + 1))
    finally:
        for listener, log in zip(listeners, logs, strict=True):
            await log.close()
            await listener.stop()
        await database.close()


async def _write(
    database: Database, log: EventLog, tenant: Tenant, stream: UUID, fence: UUID, by_writer: bool, count: int
) -> None:
    event = NewEvent("noted", {})
    if by_writer:
        await asyncio.gather(*(log.write(tenant.organization_id, stream, event, fence=fence) for _ in range(count)))
    else:
        async with database.system() as tx:
            await log.append(tx, tenant.organization_id, stream, [event] * count)


async def _read(log: EventLog, tenant: Tenant, stream: UUID, cursor: int, until: int, dawdle: int) -> list[int]:
    seen: list[int] = []
    async with aclosing(log.watch(tenant, stream, cursor)) as batches:
        async for batch in batches:
            seen += [event.sequence for event in batch.events]
            for _ in range(dawdle):
                await asyncio.sleep(0)
            if batch.last_sequence >= until:
                break
    return seen
