"""Whose turn it is to read an archive for the first time, which takes memory: some at once, organizations in turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from stationmaster_server.errors import QuotaViolation, Reason, ResourceExhausted

_RETRY_AFTER = timedelta(seconds=30)


class Turns:
    """`count` at once, `each` of them of one organization, of which `waiting` more may wait."""

    def __init__(self, count: int, *, each: int, waiting: int) -> None:
        self._count = count
        self._each = each
        self._most_waiting = waiting
        self._taken = Counter[UUID]()
        self._waiting: list[tuple[UUID, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def one(self, organization_id: UUID) -> AsyncIterator[None]:
        """The body has a turn. Raises ResourceExhausted(LIMIT_REACHED)."""
        if sum(each == organization_id for each, _ in self._waiting) >= self._most_waiting:
            text = f"{self._most_waiting} restores of this organization wait already on this server; try again later"
            violation = QuotaViolation(f"organizations/{organization_id}", text)
            raise ResourceExhausted(Reason.LIMIT_REACHED, text, violation, retry_after=_RETRY_AFTER)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine = organization_id, turn
        self._waiting.append(mine)
        self._next()
        try:
            await turn
            yield
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
            else:
                self._taken[organization_id] -= 1
            self._next()

    def _next(self) -> None:
        """Give free turns to those of whom the fewest have one, and of these to who waits longest."""
        while self._taken.total() < self._count:
            able = [each for each in self._waiting if self._taken[each[0]] < self._each and not each[1].done()]
            if not able:
                return
            found = min(able, key=lambda each: self._taken[each[0]])
            self._waiting.remove(found)
            self._taken[found[0]] += 1
            found[1].set_result(None)
