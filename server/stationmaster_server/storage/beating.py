"""Says again and again that something is being done, while it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from stationmaster_server.resilience.loops import attempt


@asynccontextmanager
async def beating(what: str, every_seconds: float, say: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Call `say` again and again while the body runs; what the database could not take is said again the next time."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(every_seconds)
            await attempt(what, say)

    task = asyncio.create_task(beat(), name=what)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
