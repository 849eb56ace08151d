"""The work queue as the rooms use it: submit, cancel, pause, resume, complete, and look after what died."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple, Protocol
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    Aborted,
    FailedPrecondition,
    LeaseLost,
    NotFound,
    PreconditionViolation,
    Reason,
)
from stationmaster_server.work import claim_store, key_store, store
from stationmaster_server.work.backlog import Backlog
from stationmaster_server.work.claim_store import Settlement
from stationmaster_server.work.model import FINAL, NewWork, Outcome, State, WorkItem
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.retry import decide
from stationmaster_server.work.run import Run
from stationmaster_server.work.store import Lease
from stationmaster_server.work.submission import (
    Room,
    insert_admitted,
    insert_one,
    insert_plain,
    is_plain,
    key_of,
    looks_up,
)


class LocalWorker(Protocol):
    """The worker of this server, as the queue sees it."""

    def wake(self, kind: str | None) -> bool:
        """There is something to claim, maybe of a kind that is known; False when this worker cannot take it now."""
        ...

    def lease_for(self, kind: str) -> Lease | None:
        """A lease to take at once, when a slot is free for the kind."""
        ...

    def take(self, item: WorkItem) -> None:
        """Run an item whose lease was taken with its submission."""
        ...

    def cancel(self, item_id: UUID) -> None:
        """Tell the item's handler, if it runs here."""
        ...

    def give_back(self, lease: Lease) -> None:
        """The lease was not taken after all."""
        ...


class WorkQueue:
    """One for each process. Every method works in the caller's transaction; workers are woken after its commit."""

    def __init__(self, notifier: Notifier, *, queue_limit: int = 100_000) -> None:
        self._notifier = notifier
        self._backlog = Backlog(queue_limit)
        self._worker: LocalWorker | None = None

    def attach(self, worker: LocalWorker) -> None:
        """Use this server's worker: it is woken without a round trip through the database."""
        self._worker = worker

    async def submit(self, tx: Transaction, work: NewWork, *, claim_here: bool = False) -> WorkItem:
        """Put an item into the queue; returns the existing one for a repeated idempotency key or USE_EXISTING.

        `claim_here` takes the lease in the same transaction when this server has a free slot: the item begins RUNNING.
        AlreadyExists when the id is taken; ResourceExhausted(QUEUE_FULL) past the bound of the organization's queue.
        """
        item, _ = await self.offer(tx, work, claim_here=claim_here)
        return item

    async def offer(self, tx: Transaction, work: NewWork, *, claim_here: bool = False) -> tuple[WorkItem, bool]:
        """As `submit`; also tells whether the item is new."""
        room = partial(self._backlog.check, tx, work.organization_id)
        lease = self._lease(work) if claim_here else None
        taken, created = False, True
        try:
            if is_plain(work):
                await room(1)
                (item,) = await insert_plain(tx, [work], lease)
            else:
                item, created = await insert_one(tx, work, lease, room)
            taken = created and item.state is State.RUNNING
        finally:
            if lease is not None and not taken and self._worker is not None:
                self._worker.give_back(lease)
        if taken and self._worker is not None:
            worker = self._worker
            tx.after_commit(lambda: worker.take(item))
        elif created:
            tx.after_commit(lambda: self.wake(work.kind))
        return item, created

    async def submit_many(self, tx: Transaction, works: Sequence[NewWork], *, bounded: bool = True) -> list[WorkItem]:
        """Put items of one organization into the queue, those that are alike in one statement where that is possible.

        Errors as of `submit`.

        `bounded` False: what follows from work that was let in is let in, however much waits.
        """
        if not works:
            return []
        room: Room = partial(self._backlog.check, tx, works[0].organization_id) if bounded else _enough
        keys = {key for work in works if (key := key_of(work)) is not None}
        if keys:
            await key_store.lock_new(tx, keys)
        plain = [work for work in works if is_plain(work)]
        if plain:
            await room(len(plain))
        inserted = iter(await insert_plain(tx, plain))
        others = iter(await self._insert_others(tx, [work for work in works if not is_plain(work)], room))
        tx.after_commit(self.wake)
        return [next(inserted if is_plain(work) else others) for work in works]

    async def _insert_others(self, tx: Transaction, works: Sequence[NewWork], room: Room) -> list[WorkItem]:
        """In their order, which decides who of a key gets its slots; the keys are locked."""
        items: list[WorkItem] = []
        for alone, group in groupby(works, looks_up):
            together = list(group)
            if alone:
                items += [(await insert_one(tx, work, None, room))[0] for work in together]
            else:
                await room(len(together))
                items += await insert_admitted(tx, together)
        return items

    def _lease(self, work: NewWork) -> Lease | None:
        if self._worker is None or work.run_at is not None or work.rate is not None or work.paused:
            return None
        return self._worker.lease_for(work.kind)

    def wake(self, kind: str | None = None) -> None:
        """There may be something to claim: tell this server's worker or, if it cannot take it, the others."""
        if self._worker is None or not self._worker.wake(kind):
            self._notifier.poke()

    async def get(self, tx: Transaction, organization_id: UUID, item_id: UUID) -> WorkItem:
        """An item; NotFound."""
        item = await store.get(tx, organization_id, item_id)
        if item is None:
            raise NotFound("work item", str(item_id))
        return item

    async def lock_keys(
        self, tx: Transaction, organization_id: UUID, item_ids: Sequence[UUID], new: Iterable[str | None] = ()
    ) -> None:
        """Lock the keys of items, and those of items to come, before several are changed in one transaction.

        Everybody locks tasks before keys, keys before items, and of each in their order: or two could wait for another.
        """
        names = {*await store.keys_of(tx, organization_id, item_ids), *new} - {None}
        if names:
            await key_store.lock_new(tx, [key_store.Key(organization_id, name) for name in names if name])

    async def cancel(
        self, tx: Transaction, organization_id: UUID, item_id: UUID, reason: str = "CANCELLED", why: str = ""
    ) -> WorkItem:
        """Cancel an item at once, or ask the worker that runs it (which hears of it within a second); NotFound.

        An item that has ended is returned as it is. `why` is for people, and kept with the errors.
        """
        item = await self.get(tx, organization_id, item_id)
        if item.state in FINAL:
            return item
        key = key_of(item)
        if key is not None:
            await key_store.lock(tx, [key])
        cancelled = await store.cancel(tx, organization_id, [item_id], reason, why)
        if not cancelled:
            return await self.get(tx, organization_id, item_id)
        if cancelled[0].state is State.RUNNING:
            tx.after_commit(lambda: self._cancel_here(item_id))
        elif key is not None:
            await self._admit(tx, [key])
        return cancelled[0]

    async def cancel_many(
        self, tx: Transaction, organization_id: UUID, item_ids: Sequence[UUID], reason: str, why: str = ""
    ) -> list[WorkItem]:
        """As `cancel`, of several at once, whose keys the caller holds (`lock_keys`); those that had not ended."""
        cancelled = await store.cancel(tx, organization_id, item_ids, reason, why)
        freed = {key for item in cancelled if item.state is not State.RUNNING and (key := key_of(item)) is not None}
        for item in cancelled:
            if item.state is State.RUNNING:
                tx.after_commit(partial(self._cancel_here, item.item_id))
        if freed:
            await self._admit(tx, list(freed))
        return cancelled

    def _cancel_here(self, item_id: UUID) -> None:
        if self._worker is not None:
            self._worker.cancel(item_id)

    async def pause(self, tx: Transaction, organization_id: UUID, item_id: UUID) -> WorkItem:
        """Hold an item back: it is not claimed, or its handler is told. NotFound; FailedPrecondition at its end."""
        return await self._set_paused(tx, organization_id, item_id, True)

    async def unpause(self, tx: Transaction, organization_id: UUID, item_id: UUID) -> WorkItem:
        """Let a paused item go on. Errors as of `pause`."""
        key = key_of(await self.get(tx, organization_id, item_id))
        if key is not None:
            await key_store.lock(tx, [key])
        item = await self._set_paused(tx, organization_id, item_id, False)
        if key is not None and item.state is State.WAITING:
            await self._admit(tx, [key])
        tx.after_commit(self.wake)
        return item

    async def _set_paused(self, tx: Transaction, organization_id: UUID, item_id: UUID, paused: bool) -> WorkItem:
        item = await store.set_paused(tx, organization_id, item_id, paused)
        if item is None:
            raise _illegal(await self.get(tx, organization_id, item_id), "PAUSED" if paused else "UNPAUSED")
        return item

    async def resume(self, tx: Transaction, organization_id: UUID, item_id: UUID) -> WorkItem:
        """Queue a suspended item again; one that is just about to suspend itself will be. Of a queued one: nothing.

        NotFound; FailedPrecondition when it has ended.
        """
        item = await store.resume(tx, organization_id, item_id)
        if item is None:
            item = await self.get(tx, organization_id, item_id)
            if item.state in FINAL:
                raise _illegal(item, State.QUEUED)
        else:
            tx.after_commit(self.wake)
        return item

    async def complete(self, tx: Transaction, run: Run, outcome: Outcome) -> State:
        """End an attempt in the handler's own transaction; returns the state that followed.

        LeaseLost when the lease is somebody else's: the transaction must not commit.
        """
        item = run.item
        decision = decide(outcome, item.attempt, item.retry)
        settlement = Settlement(item.organization_id, item.item_id, run.lease_token, item.concurrency_key, decision)
        run.completing = True
        try:
            states, admitted, _ = await settle_all(tx, [settlement])
        except BaseException:
            run.completing = False
            raise
        if item.item_id not in states:
            run.completing = False
            run.lost = True
            raise LeaseLost(f"item {item.item_id} is run by somebody else")
        tx.after_commit(lambda: self._completed(run, admitted or states[item.item_id] is State.QUEUED))
        return states[item.item_id]

    def _completed(self, run: Run, wake: bool) -> None:
        run.settled = True
        if wake:
            self.wake()

    async def retry(self, tx: Transaction, organization_id: UUID, item_id: UUID) -> WorkItem:
        """Queue a dead item again, with all its attempts; NotFound, FailedPrecondition when it is not dead.

        Aborted while its end is not followed up yet.
        """
        item = await self.get(tx, organization_id, item_id)
        if item.state is not State.DEAD:
            raise _illegal(item, State.QUEUED)
        if not await self.retry_many(tx, organization_id, [item_id]):
            raise Aborted(
                Reason.CONCURRENT_CHANGE, f"the end of work item {item_id} is being dealt with; retry it in a moment"
            )
        return await self.get(tx, organization_id, item_id)

    async def retry_many(self, tx: Transaction, organization_id: UUID, item_ids: Sequence[UUID]) -> list[UUID]:
        """Queue those of the items again that are dead and whose ends, if that was asked for, are followed up."""
        await self.lock_keys(tx, organization_id, item_ids)
        revived = await store.revive(tx, organization_id, item_ids)
        await store.touch_lanes(tx, revived)
        keys = {key for item in revived if (key := key_of(item)) is not None}
        if keys:
            await key_store.admit(tx, keys)
        tx.after_commit(self.wake)
        return [item.item_id for item in revived]

    async def _admit(self, tx: Transaction, freed: Sequence[key_store.Key]) -> None:
        if await key_store.admit(tx, freed):
            tx.after_commit(self.wake)


class Settled(NamedTuple):
    """What became of ends: the states by item, whether anybody got a slot, and which keys somebody else held."""

    states: dict[UUID, State]
    admitted: bool
    busy: frozenset[key_store.Key]


async def settle_all(
    tx: Transaction, settlements: Sequence[Settlement], *, expired: bool = False, wait: bool = True
) -> Settled:
    """End attempts and let in who waited for their slots.

    `wait` False: those whose key somebody else holds are left out, so that nobody is held up by another's key.
    """
    keys = {key for settlement in settlements if (key := settlement.key()) is not None}
    busy = frozenset[key_store.Key]()
    if keys and wait:
        await key_store.lock(tx, keys)
    elif keys:
        busy = frozenset(keys - await key_store.lock_free(tx, keys))
        settlements = [settlement for settlement in settlements if settlement.key() not in busy]
    states = await claim_store.settle(tx, settlements, expired=expired) if settlements else {}
    freed = [
        key
        for settlement in settlements
        if (key := settlement.key()) is not None and states.get(settlement.item_id) in FINAL
    ]
    return Settled(states, bool(freed and await key_store.admit(tx, freed)), busy)


async def _enough(adding: int) -> None:
    """There is room, however much waits."""


def _illegal(item: WorkItem, wanted: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.ILLEGAL_TRANSITION,
        f"work item {item.item_id} is {item.state} and cannot become {wanted}",
        PreconditionViolation("WORK_ITEM_STATE", str(item.item_id), f"it is {item.state}"),
    )
