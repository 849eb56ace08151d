"""What an attempt says, on its way into the stream: a bounded amount at a time, and nothing of it lost in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from stationmaster_server.errors import LeaseLost, StationmasterError
from stationmaster_server.events.model import NewEvent
from stationmaster_server.tasks import events

MAX_IN_FLIGHT = 1024 * 1024
"""Bytes, about, of one attempt that wait to be written."""
_OVERHEAD = 1024
"""Bytes, about, that an event takes beside its text."""


class Said:
    """Writes without making anybody wait. After the first write that failed it writes nothing more.

    So a stream has all that was said up to somewhere, and whoever speaks on or waits learns that it ends there.
    """

    def __init__(self, write: Callable[[NewEvent], asyncio.Future[int]]) -> None:
        self._write = write
        self._in_flight = 0
        self._left_out = 0
        self._failure: BaseException | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    def check(self) -> None:
        """Raise what became of the first write that failed: LeaseLost, Unavailable, ResourceExhausted."""
        if self._failure is not None:
            raise self._failure

    def event(self, event: NewEvent) -> None:
        """Write an event, whatever is in flight."""
        self._put(event, _OVERHEAD)

    def line(self, text: str, level: str) -> None:
        """Write a line; one that comes faster than lines can be written is counted instead."""
        size = min(len(text), events.MAX_LOG_CHARACTERS) + _OVERHEAD
        if self._left_out or self._in_flight + size > MAX_IN_FLIGHT:
            self._left_out += 1
        else:
            self._put(events.log(text, level), size)

    async def drain(self) -> None:
        """Wait until all that was said is durable. Raises as `check`."""
        await self._quiet.wait()
        self.check()

    def _put(self, event: NewEvent, size: int) -> None:
        if self._failure is not None:
            return
        try:
            future = self._write(event)
        except (StationmasterError, LeaseLost) as error:
            self._failure = error
            return
        self._in_flight += size
        self._quiet.clear()
        future.add_done_callback(partial(self._written, size))

    def _written(self, size: int, future: asyncio.Future[int]) -> None:
        self._in_flight -= size
        self._failure = self._failure or future.exception()
        if self._in_flight == 0:
            self._tell_of_what_was_left_out()
        if self._in_flight == 0:
            self._quiet.set()

    def _tell_of_what_was_left_out(self) -> None:
        if self._left_out:
            lines = "1 line was" if self._left_out == 1 else f"{self._left_out} lines were"
            self._left_out = 0
            text = f"{lines} left out: they came faster than they could be written"
            self._put(events.log(text, "warning"), _OVERHEAD)
