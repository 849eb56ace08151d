"""The pools of processes and threads, built, measured and tried."""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta

from stationmaster_server.config import PoolSettings
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.telemetry.metrics import Metrics

_GRACE = timedelta(seconds=2)
"""At the stop, when the work has ended that needed the pools, and the calls have."""


def build_pools(stack: AsyncExitStack, settings: PoolSettings, metrics: Metrics) -> Pools:
    """Make the pools of this process; they start nothing before it is needed, and end after whoever uses them."""
    pools = Pools(settings)
    stack.push_async_callback(pools.close, _GRACE)
    for name in pools.load():
        _measure(metrics, name, pools)
    metrics.read("cpu_pool_processes", "Processes of the pool for computing.", lambda: pools.load()["cpu"].processes)
    return pools


def _measure(metrics: Metrics, name: str, pools: Pools) -> None:
    def now() -> Mapping[str, float]:
        load = pools.load()[name]
        return {"running": load.running, "waiting": load.waiting}

    metrics.read(f"{name}_pool_calls", f"Calls that the pool {name} has.", now, label="state")
    text = f"Calls that the pool {name} had, by how they ended."
    metrics.read(f"{name}_pool_ended", text, lambda: pools.load()[name].ended, label="how", total=True)


async def try_one(settings: PoolSettings) -> float:
    """Compute something in a process; the seconds that this took. Raises StationmasterError."""
    pools = Pools(settings)
    began = time.perf_counter()
    try:
        await pools.cpu(operator.add, 1, 1, timeout=timedelta(seconds=10))
        return time.perf_counter() - began
    finally:
        await pools.close(timedelta())
