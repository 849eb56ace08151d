"""One stream at a time for each upload: a client that lost its connection comes again before the server knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from stationmaster_server.errors import Aborted, Reason

K = TypeVar("K", bound=Hashable)


class _Stream:
    __slots__ = ("left", "stop")

    def __init__(self) -> None:
        self.stop = asyncio.timeout(None)
        self.left = asyncio.Event()

    def end(self) -> None:
        if not self.left.is_set() and not self.stop.expired():
            self.stop.reschedule(asyncio.get_running_loop().time())


class Streams(Generic[K]):
    """The streams of this process."""

    def __init__(self) -> None:
        self._running: dict[K, _Stream] = {}

    @asynccontextmanager
    async def alone(self, key: K) -> AsyncIterator[None]:
        """Runs the body once the stream before, which is ended, has left. Raises Aborted when the next one ends it."""
        while (before := self._running.get(key)) is not None:
            before.end()
            await before.left.wait()
        stream = self._running[key] = _Stream()
        try:
            async with stream.stop:
                yield
        except TimeoutError:
            if not stream.stop.expired():
                raise
            raise Aborted(
                Reason.CONCURRENT_CHANGE, "another stream has taken this upload over, or it was given up"
            ) from None
        finally:
            del self._running[key]
            stream.left.set()

    def end(self, key: K) -> None:
        """End the stream of an upload, if there is one."""
        if (stream := self._running.get(key)) is not None:
            stream.end()
