"""A pool of processes for computing: each call has one for itself, with limits of time and memory that hold."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.errors import DeadlineExceeded, ProcessDied, Reason, ResourceExhausted, StationmasterError
from stationmaster_server.resilience.pool_process import Ended, OutOfMemory, PoolProcess, TimedOut
from stationmaster_server.resilience.pool_worker import MAX_BYTES
from stationmaster_server.resilience.slots import Load, Slots, name_of, stopping

_TO_LET_GO = timedelta(seconds=30)
"""For calls to hear that their processes were ended."""
_RETRY_AFTER = timedelta(minutes=1)


class ProcessPool:
    """Processes are started when they are needed, kept for the next call, and ended when nobody needs them."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._slots = Slots("a process", settings.processes, settings.max_waiting, settings.max_wait)
        self._idle: list[PoolProcess] = []  # the last used at the end
        self._all: set[PoolProcess] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._ended = Counter[str]()
        self._stopped = False

    def load(self) -> Load:
        """What it does, and did."""
        return Load.of(self._slots, self._ended, len(self._all))

    async def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: timedelta) -> Any:
        """Call the function in a process; errors as of `Pools.cpu`."""
        name = name_of(function)
        request = _pickled(name, function, arguments)
        await self._slots.take(name)
        used: list[PoolProcess] = []
        how = "done"
        try:
            process = await self._begun(request, used)
            return await process.result(timeout)
        except TimedOut:
            how = "timed_out"
            text = f"{name} took longer than {timeout.total_seconds():g} s and was ended: give it less at once"
            raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, text) from None
        except (Ended, OutOfMemory) as error:
            how = "died"
            raise self._explained(name, error) from None
        except asyncio.CancelledError:
            how = "cancelled"
            raise
        finally:
            self._ended[how] += 1
            self._put_back(used)

    async def _begun(self, request: bytes, used: list[PoolProcess]) -> PoolProcess:
        """A process that has begun with the call; it, and any that could not, are in `used`."""
        while self._idle:
            process = self._idle.pop()
            used.append(process)
            try:
                await process.begin(request)
            except Ended:  # while nobody needed it: the call has not begun and may have another
                continue
            return process
        if self._stopped:
            raise Ended("is not started any more")
        try:
            process = await PoolProcess.start()
        except OSError as error:
            raise Ended(f"could not be started: {error}") from error
        self._all.add(process)
        used.append(process)
        await process.ready(self._settings.memory)
        await process.begin(request)
        return process

    def _explained(self, name: str, error: Ended | OutOfMemory) -> StationmasterError:
        if self._stopped:
            return stopping(name)
        memory = f"{self._settings.memory / 1024**2:.0f} MiB"
        if isinstance(error, OutOfMemory):
            text = f"{name} needed more memory than a process may have, {memory}: give it less, or raise pools.memory"
            return ResourceExhausted(Reason.LIMIT_REACHED, text, retry_after=_RETRY_AFTER)
        text = f"{name} has no result: its process {error}. Nothing else was hurt; it may have had too little memory "
        return ProcessDied(Reason.INTERNAL, f"{text}(pools.memory is {memory}), or cannot bear what it was given")

    def _put_back(self, used: Sequence[PoolProcess]) -> None:
        """Keep what can be called again; the slot is free when the rest is gone."""
        broken = [process for process in used if self._stopped or not process.usable]
        for process in used:
            if process not in broken:
                self._keep(process)
        if not broken:
            self._slots.give()
            return
        ending = asyncio.create_task(self._end(broken), name="end processes of the pool")
        ending.add_done_callback(lambda _: self._slots.give())
        self._remember(ending)

    def _keep(self, process: PoolProcess) -> None:
        loop = asyncio.get_running_loop()
        process.retire_after(loop.call_later(self._settings.idle_timeout.total_seconds(), self._retire, process))
        self._idle.append(process)

    def _retire(self, process: PoolProcess) -> None:
        if process in self._idle:
            self._idle.remove(process)
            self._remember(asyncio.create_task(self._end([process]), name="end an idle process of the pool"))

    def _remember(self, ending: asyncio.Task[None]) -> None:
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, processes: Sequence[PoolProcess]) -> None:
        await asyncio.gather(*(process.end() for process in processes))
        self._all.difference_update(processes)

    async def close(self, grace: timedelta) -> None:
        """Take no more calls; let those that run or wait finish within the grace, then end them."""
        self._slots.close()
        in_time = await self._slots.until_free(grace)
        self._stopped = True
        self._slots.send_away()
        await self._end(list(self._all))
        if not in_time:
            await self._slots.until_free(_TO_LET_GO)
        self._idle.clear()
        while self._ending:
            await asyncio.wait(self._ending)


def _pickled(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        request = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        text = f"{name} cannot be called in a process, for it or an argument cannot be pickled ({error}): "
        raise TypeError(f"{text}it must be a function of a module") from error
    if len(request) > MAX_BYTES:
        raise ValueError(f"{name} was given {len(request)} bytes of arguments; a process takes {MAX_BYTES} at most")
    return request
