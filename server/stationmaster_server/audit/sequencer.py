"""Gives audit events their places in the Merkle trees, in the order of commits, on whichever server is at hand."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from stationmaster_server.audit import tree_store
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.resilience.loops import attempt
from stationmaster_server.resilience.pulse import Pulse

_log = structlog.get_logger(__name__)

BATCH = 5_000
_GATHER = timedelta(milliseconds=200)
_LOOK = timedelta(seconds=1)


class Sequencer:
    """Runs on every server; a lock of the database lets one work at a time.

    Woken by what is committed here. What another server left when it died is found by looking every second.
    """

    def __init__(self, database: Database, *, gather: timedelta = _GATHER, look: timedelta = _LOOK) -> None:
        self._database = database
        self._gather = gather.total_seconds()
        self._look = look.total_seconds()
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.pulse = Pulse()

    def wake(self) -> None:
        """Say that an event was committed."""
        self._wake.set()

    def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.create_task(self._run(), name="audit sequencer")

    async def close(self) -> None:
        """Place what is queued, and stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        last = False
        while not last:
            last = self._closing  # what came during the round before this one
            woken = last or await self._wait()
            # If it fails nothing is lost: the queue is in the database, and the next look finds it.
            await attempt("place audit events", self._place_all if woken else self._look_once, self.pulse)

    async def _wait(self) -> bool:
        """Wait to be woken, and then a little, so that many commits share a batch; False: only time has passed."""
        try:
            async with asyncio.timeout(self._look):
                await self._wake.wait()
        except TimeoutError:
            return False
        if not self._closing:
            await asyncio.sleep(self._gather)
        self._wake.clear()
        return True

    async def _look_once(self) -> None:
        async with self._database.system(autocommit=True) as tx:
            waiting = await tree_store.waiting(tx)
        if waiting:
            await self._place_all()

    async def _place_all(self) -> None:
        taken = BATCH
        while taken == BATCH:
            async with self._database.system() as tx:
                taken = await place(tx, BATCH)


async def place(tx: Transaction, batch_size: int) -> int:
    """Place a batch of events and let the trees grow by them, all in one transaction; how many were queued."""
    await tree_store.lock(tx)
    taken, placed = await tree_store.place(tx, batch_size)
    if placed:
        await tree_store.grow(tx, placed)
    gone = taken - sum(each.count for each in placed)
    if gone:
        _log.error("audit events were deleted before they had their places: somebody changed the trail", events=gone)
    return taken
