"""Our event log without the transport: writes beside the group-commit floor, and a reader on another server."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.events.bus import PostgresBus
from stationmaster_server.events.log import EventLog
from stationmaster_server.events.model import NewEvent

from benchmarks.load.closed import closed_loop
from benchmarks.stats import percentile

KIND = "text_delta"


@asynccontextmanager
async def _log(url: str) -> AsyncIterator[tuple[Database, EventLog]]:
    """What a server has: its pools, its listener, its bus, its log."""
    database = await Database.connect(url, pool_size=8, system_pool_size=6, connect_timeout=timedelta(seconds=30))
    listener = Listener(database)
    log = EventLog(database, PostgresBus(listener))
    await listener.start()
    await log.start()
    try:
        yield database, log
    finally:
        await log.close()
        await listener.stop()
        await database.close()


async def _streams(database: Database, log: EventLog, fence: uuid.UUID, count: int) -> tuple[Tenant, list[uuid.UUID]]:
    """A tenant with streams that `fence` may write to."""
    tenant = Tenant(new_id(), new_id())
    ids = [new_id() for _ in range(count)]
    async with database.system() as tx:
        organization = "INSERT INTO organizations (organization_id, display_name) VALUES ($1, 'Benchmark')"
        await tx.execute(organization, tenant.organization_id)
        for stream in ids:
            await log.create_stream(tx, tenant.organization_id, stream)
            await log.set_fence(tx, tenant.organization_id, stream, fence)
    return tenant, ids


async def event_log(*, url: str, streams: int, seconds: float, text: str) -> dict[str, float]:
    """So many streams that each write event after event, each waiting until its event is committed."""
    fence = uuid.uuid4()
    async with _log(url) as (database, log):
        tenant, ids = await _streams(database, log, fence, streams)

        async def write(stream: int) -> None:
            event = NewEvent(KIND, {"text": text, "step": 1})
            await log.write(tenant.organization_id, ids[stream], event, fence=fence)

        return await closed_loop(write, callers=streams, seconds=seconds)


class Across:
    """One stream, written on one server and read on another: each worker process is one of the two."""

    def __init__(self) -> None:
        self._written: tuple[Tenant, uuid.UUID, uuid.UUID] | None = None

    async def make_stream(self, *, url: str) -> dict[str, str]:
        """A stream of this server."""
        fence = uuid.uuid4()
        async with _log(url) as (database, log):
            tenant, [stream] = await _streams(database, log, fence, 1)
        self._written = (tenant, stream, fence)
        return {"organization": str(tenant.organization_id), "user": str(tenant.user_id), "stream": str(stream)}

    async def append(self, *, url: str, count: int, gap: float) -> dict[str, float]:
        """Write `count` events, one each `gap` seconds; the figure is how long a commit takes, in milliseconds."""
        assert self._written is not None
        tenant, stream, fence = self._written
        took: list[float] = []
        async with _log(url) as (_, log):
            for _ in range(count):
                await asyncio.sleep(gap)
                now = time.monotonic_ns()
                await log.write(tenant.organization_id, stream, NewEvent(KIND, {"text": str(now)}), fence=fence)
                took.append((time.monotonic_ns() - now) / 1e6)
        return {"committed_p50": percentile(took, 0.5)}

    async def watch(self, *, url: str, organization: str, user: str, stream: str, count: int) -> dict[str, float]:
        """Read `count` events; the figures are milliseconds from each one's writing on the other server."""
        tenant = Tenant(uuid.UUID(organization), uuid.UUID(user))
        latencies: list[float] = []
        async with _log(url) as (_, log), aclosing(log.watch(tenant, uuid.UUID(stream), 0)) as batches:
            async for batch in batches:
                now = time.monotonic_ns()
                latencies += [(now - int(event.body["text"])) / 1e6 for event in batch.events]
                if len(latencies) >= count:
                    break
        return {"p50": percentile(latencies, 0.5), "p99": percentile(latencies, 0.99)}
