"""Threads for what blocks on a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Threads:
    """A few threads of a place's own: what waits for its disk holds nobody else up."""

    def __init__(self, count: int = 8) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="storage")

    async def run(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Call a function. Even a caller that is cancelled leaves only when it has ended: it may use descriptors."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen
            raise

    def close(self) -> None:
        """Take no more."""
        self._executor.shutdown(wait=False)
