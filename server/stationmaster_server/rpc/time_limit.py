"""Ends the work of a call: at its deadline, and of a stream also when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.interceptors.deadline import passed


async def in_time(call: Call, work: Awaitable[Any]) -> Any:
    """Do the work until the caller's deadline; grpc.aio would let it go on."""
    if call.remaining is None:
        return await work
    limit = asyncio.timeout(call.remaining)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise passed() from None
        raise


class OpenStreams:
    """The streams under way, so that a server that stops can end them with an answer that says why."""

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        self._ended = False

    async def run(self, call: Call, work: Awaitable[None]) -> None:
        """Do the work of a stream until the caller's deadline or until `end`."""
        limit = asyncio.timeout(0 if self._ended else call.remaining)
        self._limits.add(limit)
        try:
            async with limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
            raise _stopping() if self._ended else passed() from None
        finally:
            self._limits.discard(limit)

    def end(self) -> None:
        """End every stream, and those that would still begin, with UNAVAILABLE."""
        self._ended = True
        now = asyncio.get_running_loop().time()
        for limit in tuple(self._limits):
            if not limit.expired():
                limit.reschedule(now)


def _stopping() -> Unavailable:
    return Unavailable(
        Reason.SERVER_STOPPING,
        "the server is stopping; resume the stream after the last sequence you have seen",
        retry_after=timedelta(seconds=1),
    )
