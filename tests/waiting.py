"""Waiting for conditions instead of for time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], Awaitable[T]], *, seconds: float = 30.0) -> T:
    """The first answer that is true; TimeoutError with the last one when none comes in time."""
    give_up = asyncio.get_running_loop().time() + seconds
    while True:
        answer = await condition()
        if answer:
            return answer
        if asyncio.get_running_loop().time() > give_up:
            raise TimeoutError(f"{condition.__qualname__} was still {answer!r} after {seconds} s")
        await asyncio.sleep(0.01)
