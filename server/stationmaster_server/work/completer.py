"""Writes the ends of attempts: whatever ended while the last write was in flight goes into the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg

from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import StationmasterError
from stationmaster_server.work import claim_store
from stationmaster_server.work.claim_store import Settlement
from stationmaster_server.work.model import State
from stationmaster_server.work.queue import settle_all
from stationmaster_server.work.retry import Decision

logger = logging.getLogger(__name__)

_BATCH = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

Requeued = Callable[[Transaction, Decision], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _End:
    """The end of an attempt; `requeued` is called in its transaction if the item is queued again."""

    settlement: Settlement
    requeued: Requeued | None
    future: asyncio.Future[State | None]


class Completer:
    """Group commit of outcomes. What cannot be written within `give_up_after` is left to its lease."""

    def __init__(self, database: Database, admitted: Callable[[], None], give_up_after: timedelta) -> None:
        self._database = database
        self._admitted = admitted
        self._give_up_after = give_up_after.total_seconds()
        self._waiting: list[_End] = []
        self._task: asyncio.Task[None] | None = None

    def put(self, settlement: Settlement, requeued: Requeued | None) -> asyncio.Future[State | None]:
        """Write the end of an attempt; the future has the state that followed, None when the lease was lost."""
        future: asyncio.Future[State | None] = asyncio.get_running_loop().create_future()
        again = settlement.decision.state is State.QUEUED
        self._waiting.append(_End(settlement, requeued if again else None, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="work completer")
        return future

    async def close(self, grace: timedelta) -> None:
        """Wait until everything is written, for so long; the rest is left to its leases."""
        task = self._task
        if task is None:
            return
        await asyncio.wait([task], timeout=grace.total_seconds())
        if not task.done():
            logger.warning("the ends of some work items were not written before the stop")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            states = await self._through_outages(batch)
            for end in batch:
                if not end.future.done():
                    end.future.set_result(states.get(end.settlement.item_id))

    async def _through_outages(self, ends: list[_End]) -> dict[UUID, State]:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._give_up_after
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._settle(ends)
            except (StationmasterError, asyncpg.InternalClientError) as error:
                # Repeating is safe: an end that was written leaves no lease to write under.
                logger.warning("ends of work items could not be written: %s", error)
                if loop.time() + pause > until:
                    return {}
            except Exception:
                logger.exception("ends of work items were refused")
                return await self._one_by_one(ends)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _one_by_one(self, ends: list[_End]) -> dict[UUID, State]:
        """Halve a batch that was refused until only the culprit fails; the reaper sees to that."""
        if len(ends) <= 1:
            return {}
        middle = len(ends) // 2
        first = await self._through_outages(ends[:middle])
        return first | await self._through_outages(ends[middle:])

    async def _settle(self, ends: list[_End]) -> dict[UUID, State]:
        settlements = [end.settlement for end in ends]
        if all(end.settlement.concurrency_key is None and end.requeued is None for end in ends):
            async with self._database.system(autocommit=True) as tx:
                return await claim_store.settle(tx, settlements)
        async with self._database.system() as tx:
            states, admitted = await settle_all(tx, settlements)
            for end in sorted(ends, key=lambda end: end.settlement.item_id):  # what it locks is in this order, too
                # It may have been cancelled meanwhile, or be somebody else's.
                if end.requeued is not None and states.get(end.settlement.item_id) is State.QUEUED:
                    await end.requeued(tx, end.settlement.decision)
            if admitted:
                tx.after_commit(self._admitted)
        return states
