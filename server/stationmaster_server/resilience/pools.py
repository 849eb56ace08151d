"""What must not run in the event loop: computing goes to a pool of processes, calls that block to one of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeVar, TypeVarTuple, cast

from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.resilience.process_pool import ProcessPool
from stationmaster_server.resilience.slots import Load
from stationmaster_server.resilience.thread_pool import ThreadPool

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Pools:
    """One for each server process. Nothing is started before it is needed; `close` leaves no process behind."""

    def __init__(self, settings: PoolSettings) -> None:
        self._processes = ProcessPool(settings)
        self._threads = ThreadPool(settings)

    async def cpu(self, function: Callable[[*Args], T], *args: *Args, timeout: timedelta) -> T:
        """Call a function of a module in a process of its own; arguments and result are pickled, 64 MiB at most each.

        `timeout` bounds the function, without what it waits for a process and what importing it takes. At the limit,
        and when the awaiting task is cancelled, its process is killed. What the function raises is raised here, as
        RemoteError if it cannot be pickled. Raises DeadlineExceeded; ResourceExhausted when it needs too much memory
        (LIMIT_REACHED) or all processes are busy (SERVER_OVERLOADED); ProcessDied; Unavailable(SERVER_STOPPING).
        """
        return cast("T", await self._processes.call(function, args, timeout))

    async def blocking(self, function: Callable[[*Args], T], *args: *Args, timeout: timedelta) -> T:
        """Call a function that waits (for a disk, a network) in a thread.

        At the time limit, and when the awaiting task is cancelled, the function goes on alone until it ends, and
        keeps its thread: it should have a limit of its own. What it raises is raised here. Raises DeadlineExceeded,
        ResourceExhausted(SERVER_OVERLOADED) when all threads are busy, Unavailable(SERVER_STOPPING).
        """
        return cast("T", await self._threads.call(function, args, timeout))

    def load(self) -> Mapping[str, Load]:
        """What each pool does now, and did, by the pool's name."""
        return {"cpu": self._processes.load(), "blocking": self._threads.load()}

    async def close(self, grace: timedelta) -> None:
        """Take no more calls; let those that run or wait finish within the grace, then end them."""
        await asyncio.gather(self._processes.close(grace), self._threads.close(grace))
