"""What is costly to read, read once for all who look at it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

T = TypeVar("T")
_TIMES, _LONGEST = 20.0, 60.0
"""It is kept for so many times what it took to read it, in seconds at most: that is a twentieth of the time or so."""


class Shared(Generic[T]):
    """One reading for all who ask meanwhile, and for a while after it."""

    def __init__(self, read: Callable[[], Awaitable[T]], lifetime: timedelta) -> None:
        """`lifetime`: for how long it is kept, or longer if it took long."""
        self._read = read
        self._lifetime = lifetime.total_seconds()
        self._kept: tuple[float, T] | None = None
        self._reading: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """What was read a moment ago. Raises what reading raises, which the next one tries again."""
        if self._kept is not None and time.monotonic() < self._kept[0]:
            return self._kept[1]
        if self._reading is None:
            self._reading = asyncio.create_task(self._take())
        return await asyncio.shield(self._reading)

    async def _take(self) -> T:
        began = time.monotonic()
        try:
            found = await self._read()
            now = time.monotonic()
            self._kept = max(began + self._lifetime, now + min(_TIMES * (now - began), _LONGEST)), found
            return found
        finally:
            self._reading = None
