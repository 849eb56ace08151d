"""Waiting for a condition, with a limit, instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


def wait_until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    """Return when the condition holds; AssertionError when it never does."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true in time"
        time.sleep(0.02)


async def eventually(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = 20) -> None:
    """`wait_until` for coroutines."""
    give_up = time.monotonic() + seconds
    while not (outcome if isinstance(outcome := condition(), bool) else await outcome):
        assert time.monotonic() < give_up, "the condition did not come true in time"
        await asyncio.sleep(0.02)
