"""A thread for what is read of this process: counting open files takes milliseconds where there are many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_thread = ThreadPoolExecutor(1, thread_name_prefix="readings")


async def reading(read: Callable[[], T]) -> T:
    """Call it in the thread for readings. Raises what it raises."""
    return await asyncio.get_running_loop().run_in_executor(_thread, read)
