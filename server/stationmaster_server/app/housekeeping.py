"""What has to be done now and then, on every server: small, repeatable, and safe to do on several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.db.engine import Database
from stationmaster_server.db.partitions import ensure_every_partition
from stationmaster_server.db.requests import forget_old
from stationmaster_server.resilience.loops import repeat

_MONTHS_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Chore:
    """One thing to do, and how often."""

    name: str
    every: timedelta
    do: Callable[[], Awaitable[object]]


class Housekeeping:
    """`async with` it. A chore that fails is logged and tried again at its next time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks: list[asyncio.Task[None]] = []
        self._chores = [
            Chore("make partitions", timedelta(hours=6), self._make_partitions),
            Chore("forget old request ids", timedelta(minutes=30), self._forget_requests),
        ]

    def add(self, chore: Chore) -> None:
        """Add a chore, before this is entered."""
        self._chores.append(chore)

    async def __aenter__(self) -> Housekeeping:
        self._tasks = [asyncio.create_task(repeat(c.name, c.every, c.do), name=c.name) for c in self._chores]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _make_partitions(self) -> None:
        await ensure_every_partition(self._database, _MONTHS_AHEAD)

    async def _forget_requests(self) -> None:
        async with self._database.system() as tx:
            await forget_old(tx)
