"""A pool of threads for calls that block: bounded, with a time limit for whoever waits."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from threading import Thread
from typing import Any

from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.errors import DeadlineExceeded, Reason
from stationmaster_server.resilience.slots import Load, Slots, name_of, stopping

Ending = tuple[Any, BaseException | None]
"""What a function returned, or raised."""


class ThreadPool:
    """A thread for each call. Nothing can end a thread: one that hangs keeps its slot, but never the program."""

    def __init__(self, settings: PoolSettings) -> None:
        self._slots = Slots("a thread", settings.threads, settings.max_waiting, settings.max_wait)
        self._calls: set[asyncio.Future[Ending]] = set()
        self._ended = Counter[str]()

    def load(self) -> Load:
        """What it does, and did. What nobody waits for any longer counts as running until it ends."""
        return Load.of(self._slots, self._ended)

    async def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: timedelta) -> Any:
        """Call the function in a thread; errors as of `Pools.blocking`."""
        name = name_of(function)
        await self._slots.take(name)
        call = self._start(name, function, arguments)
        how = "cancelled"
        try:
            await asyncio.wait([call], timeout=timeout.total_seconds())
            how = "done" if call.done() else "timed_out"
        finally:
            self._ended[how] += 1
            self._calls.discard(call)
            call.cancel()
        if call.cancelled():
            text = f"{name} took longer than {timeout.total_seconds():g} s; its thread goes on until it ends by itself"
            raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, text)
        result, error = call.result()
        if error is not None:
            raise error
        return result

    def _start(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> asyncio.Future[Ending]:
        loop = asyncio.get_running_loop()
        call: asyncio.Future[Ending] = loop.create_future()
        context = contextvars.copy_context()

        def run() -> None:
            ending: Ending
            try:
                ending = context.run(function, *arguments), None
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                ending = None, error
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._finish, call, ending)

        # A thread that Python waits for at its end would keep the server from ending.
        thread = Thread(target=run, name=f"blocking {name}", daemon=True)
        try:
            thread.start()
        except BaseException:
            self._slots.give()
            raise
        self._calls.add(call)
        return call

    def _finish(self, call: asyncio.Future[Ending], ending: Ending) -> None:
        self._slots.give()
        if not call.done():
            call.set_result(ending)

    async def close(self, grace: timedelta) -> None:
        """Take no more calls; let those that run or wait finish within the grace, then leave them."""
        self._slots.close()
        if await self._slots.until_free(grace):
            return
        self._slots.send_away()
        for call in self._calls:
            if not call.done():
                call.set_result((None, stopping("the call")))
