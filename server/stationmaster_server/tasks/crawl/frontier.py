"""The pages that are about to be fetched: a window over the durable ones, in turns among hosts."""

from __future__ import annotations

import asyncio
from collections import deque

from stationmaster_server.tasks.crawl.hosts import Hosts
from stationmaster_server.tasks.crawl.journal import Journal
from stationmaster_server.tasks.crawl.model import Target

_WINDOW = 100
_WINDOW_PER_HOST = 20


class Frontier:
    """Hands out pages while there are any and the limit of pages allows."""

    def __init__(self, journal: Journal, hosts: Hosts, asked: int, max_pages: int) -> None:
        self._journal = journal
        self._hosts = hosts
        self._room = max_pages - asked
        self._waiting: dict[str, deque[Target]] = {}
        self._running = 0
        self._begun = 0
        self._closing = False
        self.ended = False  # there is no page left, or the limit of pages is reached
        self._changed = asyncio.Condition()

    async def next(self) -> Target | None:
        """A page whose host can be asked next; None when the crawl is over, or closed. `done` must follow."""
        async with self._changed:
            while not (self._closing and self._begun):
                host = self._hosts.pick(self._waiting)
                if host is not None:
                    return self._start(host)
                if await self._refill():
                    continue
                if not self._running and not self._waiting:
                    self.ended = True
                    self._changed.notify_all()
                    return None
                await self._changed.wait()
        return None

    def close(self) -> None:
        """Hand out no more than one page in all, so that however often this is said a crawl comes to its end."""
        self._closing = True

    async def done(self, target: Target, *, counted: bool, again: bool = False) -> None:
        """A page was dealt with. `counted`: against the limit of pages; `again`: it is to be handed out once more."""
        async with self._changed:
            self._running -= 1
            self._room -= counted
            self._hosts.leave(target.host)
            if again:
                self._waiting.setdefault(target.host, deque()).appendleft(target)
            self._changed.notify_all()

    def _start(self, host: str) -> Target:
        waiting = self._waiting[host]
        target = waiting.popleft()
        if not waiting:
            del self._waiting[host]
        self._running += 1
        self._begun += 1
        self._hosts.enter(host)
        return target

    async def _refill(self) -> bool:
        """Take more pages into memory; whether there were any."""
        held = self._running + sum(len(waiting) for waiting in self._waiting.values())
        limit = min(self._room, _WINDOW) - held
        if limit <= 0:
            return False
        full = [host for host, waiting in self._waiting.items() if len(waiting) >= _WINDOW_PER_HOST]
        taken = await self._journal.take(min(limit, _WINDOW_PER_HOST), full)
        for target in taken:
            self._waiting.setdefault(target.host, deque()).append(target)
        return bool(taken)
