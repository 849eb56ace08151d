"""Closed-loop callers: each does the next thing once the last one is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.stats import percentile

WARM_UP = 0.2
"""The share of the time that is run first and not counted."""


async def closed_loop(do: Callable[[int], Awaitable[object]], *, callers: int, seconds: float) -> dict[str, float]:
    """How often `do(caller)` ends per second, and its p50 and p99 in milliseconds. What it raises ends the run.

    Counted is what ends after the warm-up and within `seconds` of it, or, of slow things, the first that ends at all.
    """
    latencies: list[float] = []
    last = 0.0
    began = time.perf_counter() + seconds * WARM_UP
    ends = began + seconds

    async def call(caller: int) -> None:
        nonlocal last
        now = time.perf_counter()
        while now < ends:
            before = now
            await do(caller)
            now = time.perf_counter()
            if began <= now <= ends or (now > ends and not latencies):
                latencies.append(now - before)
                last = now

    async with asyncio.TaskGroup() as group:
        for caller in range(callers):
            group.create_task(call(caller))
    return {
        "rate": len(latencies) / max(seconds, last - began),
        "p50": percentile(latencies, 0.5) * 1000,
        "p99": percentile(latencies, 0.99) * 1000,
    }
