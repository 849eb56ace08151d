"""A thread for what is read of this process: counting open files takes milliseconds where there are many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ReadingThread:
    """Started when it is first needed; `close` it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="readings")

    async def call(self, read: Callable[[], T]) -> T:
        """Call it in the thread. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    def close(self) -> None:
        """End the thread, without waiting for a reading that is under way."""
        self._thread.shutdown(wait=False, cancel_futures=True)
