"""The command lines of this process: how many there are, which wait for their session's next turn, when they end."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from stationmaster_server.agents.executors import Counters
from stationmaster_server.agents.runtimes.claude.live import Live


class Pool:
    """At most `most`, counting those that start. Idle ones make room for others, the longest idle first."""

    def __init__(self, most: int, idle: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        self.counters = Counters()
        self._most = most
        self._idle_seconds = idle.total_seconds()
        self._clock = clock
        self._taken = 0
        self._idle: OrderedDict[UUID, Live] = OrderedDict()
        self._busy: set[Live] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return self._taken

    def take(self, session_id: UUID) -> Live | None:
        """The one that waits for this session, if there is one. Give it back by `keep` or `end`."""
        live = self._idle.pop(session_id, None)
        if live is not None:
            self._busy.add(live)
        return live

    async def place(self) -> None:
        """Wait for a place for a new one; give it back by `end` or `give_up`."""
        while self._taken >= self._most:
            if self._idle:
                _, oldest = self._idle.popitem(last=False)
                self._busy.add(oldest)
                await self._evict(oldest)
            else:
                self._changed.clear()
                await self._changed.wait()
        self._taken += 1
        self.counters.misses += 1

    def give_up(self) -> None:
        """A place is free again: nothing lives there."""
        self._taken -= 1
        self._changed.set()

    def add(self, live: Live) -> None:
        """One was started in a place."""
        self._busy.add(live)

    async def keep(self, live: Live) -> None:
        """Its turn has ended: let it wait for the session's next."""
        older = self._idle.get(live.place.session_id)
        if older is not None or live.doomed or live not in self._busy:
            await self.end(live)
            return
        self._busy.discard(live)
        live.idle_since = self._clock()
        self._idle[live.place.session_id] = live
        self._changed.set()

    async def end(self, live: Live) -> None:
        """End one that was taken."""
        if live not in self._busy:
            return
        self._busy.discard(live)
        try:
            await live.end()
        finally:
            self.give_up()

    async def evict_idle(self) -> int:
        """End what no turn has used for a while; returns how many."""
        limit = self._clock() - self._idle_seconds
        old = [live for live in self._idle.values() if live.idle_since <= limit or not live.alive]
        for live in old:
            if self._idle.pop(live.place.session_id, None) is live:
                self._busy.add(live)
                await self._evict(live)
        return len(old)

    def sessions(self) -> list[UUID]:
        """The sessions that have one, in use or not."""
        return [*self._idle, *(live.place.session_id for live in self._busy)]

    async def close_session(self, session_id: UUID) -> None:
        """End the session's, at the latest with the turn that uses it."""
        for live in self._busy:
            if live.place.session_id == session_id:
                live.doomed = True
        idle = self.take(session_id)
        if idle is not None:
            await self._evict(idle)

    async def close(self) -> None:
        """End all, whoever uses them."""
        self._busy.update(self._idle.values())
        self._idle.clear()
        await asyncio.gather(*(self.end(live) for live in list(self._busy)))

    async def _evict(self, live: Live) -> None:
        self.counters.evictions += 1
        await self.end(live)
