"""The pool of threads: bounded, with a limit for whoever waits, and no thread that holds up the end."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
from datetime import timedelta

import pytest
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from stationmaster_server.resilience.pools import Pools

from tests.resilience import pool_functions as do
from tests.waiting import until

LONG = timedelta(minutes=2)
SHORT = timedelta(milliseconds=100)


def pools_of(threads: int = 2, max_waiting: int = 100) -> Pools:
    """Pools without processes."""
    return Pools(PoolSettings(threads=threads, max_waiting=max_waiting))


async def running(pools: Pools, count: int) -> None:
    """Until so many calls have a thread, or wait for one."""

    async def as_many() -> bool:
        load = pools.load()["blocking"]
        return load.running + load.waiting == count

    await until(as_many)


async def test_results_and_errors_come_back_and_others_go_on_meanwhile() -> None:
    pools, event = pools_of(), threading.Event()
    waiting = asyncio.create_task(pools.blocking(do.wait_for, event, timeout=LONG))
    assert await pools.blocking(do.add, 1, 2, timeout=LONG) == 3
    with pytest.raises(TimeoutError, match="my own"):
        await pools.blocking(do.raise_timeout, timeout=LONG)
    event.set()
    assert await waiting == "went on"


async def test_the_caller_s_context_is_seen() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("request 1")
    assert await pools_of().blocking(name.get, timeout=LONG) == "request 1"


async def test_never_more_threads_than_the_settings_say() -> None:
    pools, event = pools_of(threads=3), threading.Event()
    calls = [asyncio.create_task(pools.blocking(do.wait_for, event, timeout=LONG)) for _ in range(20)]
    await running(pools, 20)
    load = pools.load()["blocking"]
    threads = sum(thread.name == "blocking wait_for" for thread in threading.enumerate())
    assert (load.running, load.waiting, threads) == (3, 17, 3)
    event.set()
    assert await asyncio.gather(*calls) == ["went on"] * 20


async def test_a_thread_that_hangs_costs_its_caller_no_more_than_the_limit_and_keeps_its_slot() -> None:
    pools, event = pools_of(threads=1, max_waiting=1), threading.Event()
    with pytest.raises(DeadlineExceeded, match=r"wait_for took longer than 0.1 s; its thread goes on until it ends"):
        await pools.blocking(do.wait_for, event, timeout=SHORT)
    assert pools.load()["blocking"].running == 1
    waiting = asyncio.create_task(pools.blocking(do.add, 1, 2, timeout=LONG))
    await running(pools, 2)
    with pytest.raises(ResourceExhausted, match="1 calls wait for a thread already"):
        await pools.blocking(do.add, 1, 2, timeout=LONG)
    event.set()
    assert await waiting == 3
    assert pools.load()["blocking"].ended["timed_out"] == 1


async def test_a_cancelled_caller_does_not_wait_for_the_thread() -> None:
    pools, event = pools_of(threads=1), threading.Event()
    call = asyncio.create_task(pools.blocking(do.wait_for, event, timeout=LONG))
    await running(pools, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    event.set()
    await running(pools, 0)
    assert pools.load()["blocking"].ended["cancelled"] == 1


async def test_closing_leaves_a_thread_that_hangs_and_tells_its_caller() -> None:
    pools, event = pools_of(threads=1), threading.Event()
    calls = [asyncio.create_task(pools.blocking(do.wait_for, event, timeout=LONG)) for _ in range(2)]
    await running(pools, 2)
    await pools.close(SHORT)
    for call in calls:
        with pytest.raises(Unavailable, match="the server is stopping"):
            await call
    event.set()
    await running(pools, 0)


HANGS = """
import asyncio, threading
from datetime import timedelta
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.errors import DeadlineExceeded
from stationmaster_server.resilience.pools import Pools

async def main():
    pools = Pools(PoolSettings())
    try:
        await pools.blocking(threading.Event().wait, timeout=timedelta(milliseconds=50))
    except DeadlineExceeded:
        await pools.close(timedelta(0))

asyncio.run(main())
print("ended")
"""


async def test_a_thread_that_hangs_does_not_keep_the_program_from_ending() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", HANGS, stdout=-1, env=environment)
    output, _ = await asyncio.wait_for(program.communicate(), 60)
    assert (output, program.returncode) == (b"ended\n", 0)
