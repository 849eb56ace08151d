"""Writes the ends of attempts: whatever ended while the last write was in flight goes into the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import asyncpg

from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Aborted, StationmasterError
from stationmaster_server.work import claim_store
from stationmaster_server.work.claim_store import Settlement
from stationmaster_server.work.key_store import Key
from stationmaster_server.work.model import State
from stationmaster_server.work.queue import Settled, settle_all
from stationmaster_server.work.retry import Decision

logger = logging.getLogger(__name__)

_BATCH = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_TURN = timedelta(seconds=1)  # how long one key is waited for before the next one is
_NOTHING = Settled({}, False, frozenset())


Requeued = Callable[[Transaction, Decision], Awaitable[None]]


class _End(NamedTuple):
    """The end of an attempt, to be written until then; `requeued` is called with it if the item is queued again."""

    settlement: Settlement
    requeued: Requeued | None
    future: asyncio.Future[State | None]
    until: float


Settle = Callable[[Sequence[_End]], Awaitable[Settled]]


class Completer:
    """Group commit of outcomes. What cannot be written within `give_up_after` is left to its lease.

    A key that somebody's transaction holds is waited for apart, by turns: it holds up the ends of its own items only.
    """

    def __init__(self, database: Database, admitted: Callable[[], None], give_up_after: timedelta) -> None:
        self._database = database
        self._admitted = admitted
        self._give_up_after = give_up_after.total_seconds()
        self._waiting: list[_End] = []
        self._held_up: dict[Key, list[_End]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def put(self, settlement: Settlement, requeued: Requeued | None) -> asyncio.Future[State | None]:
        """Write the end of an attempt; the future has the state that followed, None when the lease was lost."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[State | None] = loop.create_future()
        again = requeued if settlement.decision.state is State.QUEUED else None
        self._waiting.append(_End(settlement, again, future, loop.time() + self._give_up_after))
        self._start("work completer", self._run)
        return future

    async def close(self, grace: timedelta) -> None:
        """Wait until everything is written, for so long; the rest is left to its leases."""
        until = asyncio.get_running_loop().time() + grace.total_seconds()
        while tasks := [task for task in self._tasks.values() if not task.done()]:
            _, late = await asyncio.wait(tasks, timeout=max(until - asyncio.get_running_loop().time(), 0))
            if late:
                logger.warning("the ends of some work items were not written before the stop")
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
                return

    def _start(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(run(), name=name)

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            await self._write([end for end in batch if _is_plain(end)], self._settle_plain)
            await self._write([end for end in batch if not _is_plain(end)], self._settle)

    async def _run_held_up(self) -> None:
        while self._held_up:
            key = next(iter(self._held_up))
            await self._write(self._held_up.pop(key), self._settle_in_turn)

    async def _write(self, batch: Sequence[_End], settle: Settle) -> None:
        if not batch:
            return
        settled = await self._through_outages(settle, batch)
        now = asyncio.get_running_loop().time()
        for each in batch:
            key = each.settlement.key()
            if key is not None and key in settled.busy and now < each.until:
                self._held_up.setdefault(key, []).append(each)
            elif not each.future.done():
                each.future.set_result(settled.states.get(each.settlement.item_id))
        if self._held_up:
            self._start("work completer of keys that are held", self._run_held_up)

    async def _through_outages(self, settle: Settle, ends: Sequence[_End]) -> Settled:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._give_up_after
        pause = _FIRST_PAUSE
        while True:
            try:
                return await settle(ends)
            except (StationmasterError, asyncpg.InternalClientError) as error:
                # Repeating is safe: an end that was written leaves no lease to write under.
                logger.warning("ends of work items could not be written: %s", error)
                if loop.time() + pause > until:
                    return _NOTHING
            except Exception:
                logger.exception("ends of work items were refused")
                return await self._one_by_one(settle, ends)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _one_by_one(self, settle: Settle, ends: Sequence[_End]) -> Settled:
        """Halve a batch that was refused until only the culprit fails; the reaper sees to that."""
        if len(ends) <= 1:
            return _NOTHING
        middle = len(ends) // 2
        first = await self._through_outages(settle, ends[:middle])
        second = await self._through_outages(settle, ends[middle:])
        return Settled(first.states | second.states, first.admitted or second.admitted, first.busy | second.busy)

    async def _settle_plain(self, ends: Sequence[_End]) -> Settled:
        """Those that have no key and nothing to write with them, in one statement."""
        async with self._database.system(autocommit=True) as tx:
            return Settled(await claim_store.settle(tx, _settlements(ends)), False, frozenset())

    async def _settle(self, ends: Sequence[_End]) -> Settled:
        """Those whose keys nobody holds."""
        async with self._database.system() as tx:
            settled = await settle_all(tx, _settlements(ends), wait=False)
            await self._follow(tx, ends, settled)
        return settled

    async def _settle_in_turn(self, ends: Sequence[_End]) -> Settled:
        """Those of one key, behind whoever waits for it already; for a while."""
        try:
            async with self._database.system() as tx:
                await tx.wait_at_most(_TURN)
                settled = await settle_all(tx, _settlements(ends))
                await self._follow(tx, ends, settled)
        except Aborted:
            return _NOTHING._replace(busy=frozenset(key for end in ends if (key := end.settlement.key())))
        return settled

    async def _follow(self, tx: Transaction, ends: Sequence[_End], settled: Settled) -> None:
        for end in sorted(ends, key=lambda end: end.settlement.item_id):  # what it locks is in this order, too
            # It may have been cancelled meanwhile, or be somebody else's.
            if end.requeued is not None and settled.states.get(end.settlement.item_id) is State.QUEUED:
                await end.requeued(tx, end.settlement.decision)
        if settled.admitted:
            tx.after_commit(self._admitted)


def _is_plain(end: _End) -> bool:
    return end.settlement.concurrency_key is None and end.requeued is None


def _settlements(ends: Sequence[_End]) -> list[Settlement]:
    return [end.settlement for end in ends]
