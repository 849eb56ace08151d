"""Measurements of the event log and of its floors, as functions: each takes what it needs and returns figures."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import aclosing
from pathlib import Path
from uuid import UUID

import asyncpg
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.events.log import EventLog
from stationmaster_server.events.model import NewEvent

TEXT = "hello world "


async def make_streams(database: Database, log: EventLog, tenant: Tenant, count: int) -> tuple[list[UUID], UUID]:
    """Streams of a tenant, and the fence under which all of them are written."""
    streams, fence = [new_id() for _ in range(count)], new_id()
    async with database.system() as tx:
        for stream in streams:
            await log.create_stream(tx, tenant.organization_id, stream)
            await log.set_fence(tx, tenant.organization_id, stream, fence)
    return streams, fence


async def floor_inserts_per_second(url: str, callers: int, seconds: float, window: int = 1) -> float:
    """E1's floor: group commit of rows into a bare table; each caller waits for every `window`-th of its rows."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS floor_events (id uuid, n bigint, body text)")
    pending: list[tuple[UUID, int, str, asyncio.Future[None]]] = []
    wake = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def write() -> None:
        nonlocal pending
        while True:
            await wake.wait()
            wake.clear()
            while pending:
                batch, pending = pending, []
                await connection.execute(
                    "INSERT INTO floor_events SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[])",
                    [row[0] for row in batch],
                    [row[1] for row in batch],
                    [row[2] for row in batch],
                )
                for row in batch:
                    row[3].set_result(None)

    async def call(stream: UUID) -> int:
        number = 0
        while time.perf_counter() < end:
            for _ in range(window):
                future: asyncio.Future[None] = loop.create_future()
                pending.append((stream, number, '{"text":"hello world "}', future))
                number += 1
            wake.set()
            await future
        return number

    end = time.perf_counter() + seconds
    writer = asyncio.create_task(write())
    started = time.perf_counter()
    counts = await asyncio.gather(*(call(new_id()) for _ in range(callers)))
    rate = sum(counts) / (time.perf_counter() - started)
    writer.cancel()
    await connection.execute("DROP TABLE floor_events")
    await connection.close()
    return rate


async def events_per_second(
    log: EventLog,
    tenant: Tenant,
    streams: list[UUID],
    fence: UUID,
    seconds: float,
    window: int = 1,
    merge: bool = False,
) -> float:
    """E1: durable events of many streams; each producer waits for every `window`-th of its events."""

    async def produce(stream: UUID) -> int:
        number = 0
        while time.perf_counter() < end:
            for _ in range(window):
                event = NewEvent("text_delta", {"text": TEXT}, merge_key="answer" if merge else None)
                last = log.write(tenant.organization_id, stream, event, fence=fence)
                number += 1
            await last
            await log.room()
        return number

    started = time.perf_counter()
    end = started + seconds
    counts = await asyncio.gather(*(produce(stream) for stream in streams))
    return sum(counts) / (time.perf_counter() - started)


async def notify_floor_ms(url: str, rounds: int) -> list[float]:
    """E2's floor: NOTIFY on one connection until it is heard on another, in milliseconds, sorted."""
    sender, receiver = await asyncpg.connect(url), await asyncpg.connect(url)
    heard = asyncio.Event()
    await receiver.add_listener("measure", lambda *_: heard.set())
    taken = []
    for _ in range(rounds):
        await asyncio.sleep(0.002)
        heard.clear()
        started = time.perf_counter()
        await sender.execute("NOTIFY measure, 'x'")
        await heard.wait()
        taken.append((time.perf_counter() - started) * 1000)
    await sender.close()
    await receiver.close()
    return sorted(taken)


async def write_to_remote_watcher_ms(
    here: EventLog, there: EventLog, tenant: Tenant, stream: UUID, fence: UUID, rounds: int
) -> list[float]:
    """E2: a write on one server until a watcher of another has the event, in milliseconds, sorted."""
    taken = []
    async with aclosing(there.watch(tenant, stream, 0)) as batches:
        for _ in range(rounds + 1):
            following = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0.002)
            started = time.perf_counter()
            here.write(tenant.organization_id, stream, NewEvent("noted", {}), fence=fence)
            while not (await following).events:
                following = asyncio.ensure_future(anext(batches))
            taken.append((time.perf_counter() - started) * 1000)
    return sorted(taken[1:])


async def idle_watchers(log: EventLog, tenant: Tenant, streams: list[UUID], seconds: float) -> tuple[float, float]:
    """E4's share of the log: KiB for each idle watcher, and the share of a core that all of them take."""

    async def watch(stream: UUID) -> None:
        async with aclosing(log.watch(tenant, stream, 0)) as batches:
            async for _ in batches:
                pass

    gc.collect()
    before = _resident_kib()
    watchers = [asyncio.create_task(watch(stream)) for stream in streams]
    while len(log._hub.cursors()) < len(streams):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    gc.collect()
    each = (_resident_kib() - before) / len(streams)
    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    share = (time.process_time() - cpu) / (time.perf_counter() - started)
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    return each, share


def _resident_kib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1])
    raise RuntimeError("no VmRSS")
