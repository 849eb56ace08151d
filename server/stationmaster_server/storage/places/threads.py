"""Threads for what blocks on a disk, and waiting that no cancellation cuts short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Args = TypeVarTuple("Args")


async def to_the_end(work: Awaitable[T]) -> T:
    """Await what must not be left half done. Whoever is cancelled meanwhile, however often, leaves after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen
        raise cancelled
    return task.result()


AT_ONCE = 16
"""How many small files are worked on side by side."""


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """Await all, to the end of the last one. Raises what the first that failed has raised."""
    results = await asyncio.gather(*works, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


class Threads:
    """A few threads of a place's own: what waits for its disk holds nobody else up."""

    def __init__(self, count: int = 8) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="storage")

    async def run(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Call a function. Even a caller that is cancelled leaves only when it has ended: it may use descriptors."""
        return await to_the_end(asyncio.get_running_loop().run_in_executor(self._executor, function, *args))

    async def open(self, close: Callable[[T], None], function: Callable[[*Args], T], *args: *Args) -> T:
        """The same, of a function that opens something; it is closed if nobody gets it."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        try:
            return await to_the_end(future)
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:
                close(future.result())
            raise

    def close(self) -> None:
        """Take no more."""
        self._executor.shutdown(wait=False)
