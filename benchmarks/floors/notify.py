"""The NOTIFY floor: from `pg_notify` on one connection to the callback of another process' LISTEN."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from benchmarks.stats import percentile

CHANNEL = "floor"


async def listen(*, url: str, count: int) -> dict[str, float]:
    """Hear `count` notifications; the figures are milliseconds from each one's sending."""
    connection = await asyncpg.connect(url)
    latencies: list[float] = []
    done = asyncio.Event()

    def heard(_connection: Any, _process: int, _channel: str, payload: Any) -> None:
        if payload:
            latencies.append((time.monotonic_ns() - int(payload)) / 1e6)
        if len(latencies) == count:
            done.set()

    await connection.add_listener(CHANNEL, heard)
    await done.wait()
    await connection.close()
    return {"p50": percentile(latencies, 0.5), "p99": percentile(latencies, 0.99)}


async def notify(*, url: str, count: int, gap: float) -> dict[str, float]:
    """Send `count` notifications, one each `gap` seconds; the other process listens already."""
    connection = await asyncpg.connect(url)
    for _ in range(count):
        await asyncio.sleep(gap)
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, str(time.monotonic_ns()))
    await connection.close()
    return {}
