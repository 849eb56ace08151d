"""The streams under way, so that a server that stops can end each with an answer that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

from stationmaster_server.errors import Reason, Unavailable


class OpenStreams:
    """Runs streams until they end by themselves or `end` is called."""

    def __init__(self) -> None:
        self._running: set[asyncio.Timeout] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._running)

    async def run(self, work: Awaitable[None]) -> None:
        """Do the work of a stream; Unavailable when `end` cut it short."""
        stop = asyncio.timeout(0 if self._ended else None)
        self._running.add(stop)
        try:
            async with stop:
                await work
        except TimeoutError:
            if not stop.expired():
                raise
            raise _stopping() from None
        finally:
            self._running.discard(stop)

    def end(self) -> None:
        """End every stream, and those that would still begin."""
        self._ended = True
        now = asyncio.get_running_loop().time()
        for stop in tuple(self._running):
            if not stop.expired():
                stop.reschedule(now)


def _stopping() -> Unavailable:
    return Unavailable(
        Reason.SERVER_STOPPING,
        "the server is stopping; resume the stream after the last sequence you have seen",
        retry_after=timedelta(seconds=1),
    )
