"""A small cache of what the database says: for a short time, forgotten at a word, one query for many who ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps also that there is nothing, so that an unknown key is answered as fast as a known one."""

    def __init__(self, lifetime: timedelta, most: int = 20_000) -> None:
        self._lifetime = lifetime.total_seconds()
        self._most = most
        self._kept: dict[K, tuple[float, V | None]] = {}
        self._asking: dict[K, asyncio.Task[V | None]] = {}

    async def get(self, key: K, find: Callable[[K], Awaitable[V | None]]) -> V | None:
        """What is kept, or what `find` finds."""
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._ask(key, find))
        return await asyncio.shield(asking)

    def __len__(self) -> int:
        return len(self._kept)

    def forget(self) -> None:
        """Believe nothing any more, not even what is being asked just now."""
        self._kept.clear()
        self._asking.clear()

    async def _ask(self, key: K, find: Callable[[K], Awaitable[V | None]]) -> V | None:
        task = asyncio.current_task()
        until = time.monotonic() + self._lifetime
        try:
            found = await find(key)
            if self._asking.get(key) is task:
                if len(self._kept) >= self._most:
                    self._kept.clear()
                self._kept[key] = until, found
            return found
        finally:
            if self._asking.get(key) is task:
                del self._asking[key]
