"""Clients that are costly to make, kept while they are used and for a while after."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class Counters:
    """What the cache did since it was made."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0


@dataclass(slots=True, eq=False)
class _Executor(Generic[V]):
    value: V
    last_used: float
    users: int = 0


@dataclass(slots=True, eq=False)
class _Making:
    """Making one takes time; whoever wants the same one meanwhile waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Executors(Generic[K, V]):
    """At most `most` clients; past it the least recently used goes. One in use is never closed but by `close`.

    `make` runs in a thread, because it may import a provider's library; `close` ends a client's connections.
    """

    def __init__(
        self,
        make: Callable[[K], V],
        close: Callable[[V], Awaitable[None]],
        *,
        most: int = 64,
        idle: timedelta = timedelta(minutes=10),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = Counters()
        self._make = make
        self._close = close
        self._most = most
        self._idle = idle.total_seconds()
        self._clock = clock
        self._kept: OrderedDict[K, _Executor[V]] = OrderedDict()
        self._making: dict[K, _Making] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def acquire(self, key: K) -> V:
        """The client for the key; give it back by `release`."""
        executor = self._kept.get(key)
        if executor is None:
            executor = await self._made(key)
        else:
            self.counters.hits += 1
        executor.users += 1
        self._kept.move_to_end(key)
        return executor.value

    async def release(self, key: K, value: V) -> None:
        """Gives back what `acquire` returned."""
        executor = self._kept.get(key)
        if executor is None or executor.value is not value:
            return  # all were closed meanwhile
        executor.users -= 1
        executor.last_used = self._clock()
        if len(self._kept) > self._most:
            await self._shrink()

    async def evict_idle(self) -> int:
        """Closes what nobody has used for a while; returns how many."""
        limit = self._clock() - self._idle
        old = [key for key, executor in self._kept.items() if executor.users == 0 and executor.last_used <= limit]
        for key in old:
            await self._evict(key)
        return len(old)

    async def close(self) -> None:
        """Closes all, whoever uses them."""
        for key in list(self._kept):
            await self._evict(key)

    async def _made(self, key: K) -> _Executor[V]:
        making = self._making.setdefault(key, _Making())
        making.waiting += 1
        try:
            async with making.lock:
                executor = self._kept.get(key)
                if executor is not None:
                    self.counters.hits += 1
                    return executor
                self.counters.misses += 1
                value = await asyncio.to_thread(self._make, key)
                executor = self._kept[key] = _Executor(value, self._clock())
                return executor
        finally:
            making.waiting -= 1
            if not making.waiting:
                self._making.pop(key, None)

    async def _shrink(self) -> None:
        spare = [key for key, executor in self._kept.items() if executor.users == 0]
        for key in spare[: max(len(self._kept) - self._most, 0)]:
            await self._evict(key)

    async def _evict(self, key: K) -> None:
        executor = self._kept.pop(key)
        self.counters.evictions += 1
        await self._close(executor.value)
