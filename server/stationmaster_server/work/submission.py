"""Putting items into the queue: idempotency, id conflicts, concurrency keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from stationmaster_server.db.ids import new_id
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists
from stationmaster_server.work import key_store, store
from stationmaster_server.work.key_store import Key
from stationmaster_server.work.model import (
    HOLDS_SLOT,
    NewWork,
    OnConflict,
    State,
    Strategy,
    WorkItem,
)
from stationmaster_server.work.store import Lease, Row

Room = Callable[[int], Awaitable[None]]
"""Makes sure that the queue takes so many more items. Raises ResourceExhausted(QUEUE_FULL)."""


def key_of(item: NewWork | WorkItem) -> Key | None:
    """The item's concurrency key."""
    return None if item.concurrency_key is None else Key(item.organization_id, item.concurrency_key)


def is_plain(work: NewWork) -> bool:
    """Whether nothing has to be looked up before it is inserted."""
    return work.concurrency_key is None and work.idempotency_key is None and work.on_conflict is OnConflict.FAIL


def looks_up(work: NewWork) -> bool:
    """Whether something has to be looked up for it alone, or somebody cancelled, before it is inserted."""
    return (
        work.idempotency_key is not None
        or work.on_conflict is not OnConflict.FAIL
        or (work.concurrency_key is not None and work.strategy is Strategy.CANCEL_RUNNING)
    )


Shape = tuple[object, ...]


def _shape(work: NewWork, state: State) -> Shape:
    """What items that go into one statement have in common."""
    return (
        state,
        work.concurrency_key,
        work.max_running,
        work.strategy,
        work.organization_id,
        work.user_id,
        work.kind,
        work.priority,
        work.run_at,
        work.rate,
        work.retry,
        work.timeouts,
        work.follow_up,
        work.paused,
    )


async def insert_plain(tx: Transaction, works: Sequence[NewWork], lease: Lease | None = None) -> list[WorkItem]:
    """Insert plain items, those that are alike in one statement; AlreadyExists when an id is taken."""
    state = State.QUEUED if lease is None else State.RUNNING
    return await _insert_alike(tx, [(work, state) for work in works], lease)


async def insert_admitted(tx: Transaction, works: Sequence[NewWork]) -> list[WorkItem]:
    """Insert items of locked keys for which nothing `looks_up`; they get slots in their order.

    Those that are alike are one statement; AlreadyExists when an id is taken.
    """
    keys = [Key(work.organization_id, work.concurrency_key or "") for work in works]
    taken = await key_store.slots_taken(tx, keys)
    admitted = []
    later = {moment: await store.is_later(tx, moment) for moment in {work.run_at for work in works}}
    for key, work in zip(keys, works, strict=True):
        state = _admission(work, taken[key], later=later[work.run_at])
        taken[key] += state is State.QUEUED
        admitted.append((work, state))
    return await _insert_alike(tx, admitted)


async def _insert_alike(
    tx: Transaction, works: Sequence[tuple[NewWork, State]], lease: Lease | None = None
) -> list[WorkItem]:
    alike: dict[Shape, tuple[NewWork, State, list[Row]]] = {}
    order: list[UUID] = []
    for work, state in works:
        row = Row(work.item_id or new_id(), work.subject_id, work.payload)
        order.append(row.item_id)
        alike.setdefault(_shape(work, state), (work, state, []))[2].append(row)
    inserted: dict[UUID, WorkItem] = {}
    for like, state, rows in alike.values():
        inserted |= await store.insert(tx, like, rows, state, lease)
    for item_id in order:
        if item_id not in inserted:
            raise AlreadyExists("work item", str(item_id))
    return [inserted[item_id] for item_id in order]


async def insert_one(tx: Transaction, work: NewWork, lease: Lease | None, room: Room) -> tuple[WorkItem, bool]:
    """Insert an item, or find the one that stands for it, which needs no room; tells whether it is new.

    The key is locked first, so that a repeat is seen before it can cancel anybody.
    """
    key = key_of(work)
    keys = [key] if key is not None else []
    if work.on_conflict is OnConflict.TERMINATE_EXISTING and work.item_id is not None:
        keys += [
            Key(work.organization_id, name) for name in await store.keys_of(tx, work.organization_id, [work.item_id])
        ]
    if keys:
        await key_store.lock_new(tx, keys)
    existing = await _existing(tx, work)
    if existing is not None:
        return existing, False
    await room(1)
    state = State.QUEUED
    if key is not None:
        later = await store.is_later(tx, work.run_at)
        if work.strategy is Strategy.CANCEL_RUNNING and not later:  # also of one that is held back
            await _make_room(tx, key, work.max_running)
        state = _admission(work, (await key_store.slots_taken(tx, [key]))[key], later=later)
    row = Row(work.item_id or new_id(), work.subject_id, work.payload)
    if lease is not None and state is State.QUEUED:
        inserted = await store.insert(tx, work, [row], State.RUNNING, lease)
    else:
        inserted = await store.insert(tx, work, [row], state)
    if inserted:
        return inserted[row.item_id], True
    return await _raced(tx, work, row.item_id), False


async def _existing(tx: Transaction, work: NewWork) -> WorkItem | None:
    if work.idempotency_key is not None:
        repeated = await store.of_idempotency_key(tx, work.organization_id, work.idempotency_key)
        if repeated is not None:
            return repeated
    if work.item_id is None or work.on_conflict is OnConflict.FAIL:
        return None
    existing = await store.get(tx, work.organization_id, work.item_id)
    if existing is None or work.on_conflict is OnConflict.USE_EXISTING:
        return existing
    await _terminate(tx, existing)
    return None


async def _terminate(tx: Transaction, existing: WorkItem) -> None:
    key = key_of(existing)
    if key is not None:
        await key_store.lock_new(tx, [key])
    await store.delete(tx, existing.organization_id, existing.item_id)
    if key is not None and existing.state in HOLDS_SLOT:
        await key_store.admit(tx, [key])


async def _raced(tx: Transaction, work: NewWork, item_id: UUID) -> WorkItem:
    """Somebody else inserted the same id or idempotency key, and has committed by now."""
    if work.idempotency_key is not None:
        repeated = await store.of_idempotency_key(tx, work.organization_id, work.idempotency_key)
        if repeated is not None:
            return repeated
    existing = await store.get(tx, work.organization_id, item_id)
    if existing is not None and work.on_conflict is OnConflict.USE_EXISTING:
        return existing
    raise AlreadyExists("work item", str(item_id))


def _admission(work: NewWork, taken: int, *, later: bool) -> State:
    """The state that an item begins in, of whose key so many slots are taken.

    One that is held back takes none, and neither does one that is to run later: what becomes of it is decided then.
    """
    if later or work.paused:
        return State.WAITING
    if taken < work.max_running:
        return State.QUEUED
    return State.CANCELLED if work.strategy is Strategy.CANCEL_NEWEST else State.WAITING


async def _make_room(tx: Transaction, key: Key, max_running: int) -> None:
    """Cancel all but the newest `max_running - 1`; those that run keep their slot until they have stopped.

    Of the newest, those that waited get the slots that became free.
    """
    members = await key_store.not_cancelled(tx, key)
    in_the_way = [member.item_id for member in members[max(max_running - 1, 0) :]]
    if in_the_way:
        await store.cancel(tx, key.organization_id, in_the_way, "CANCELLED_BY_NEWER")
        await key_store.admit(tx, [key])


async def let_in_due(tx: Transaction, key: Key, limit: int) -> None:
    """Have the items of a locked key that were to run later, and whose time has come, wait for its slots from now on.

    Whoever finds none is dealt with by its strategy, as if it were submitted now: first come those that only wait.
    """
    due = await key_store.due_items(tx, key, limit)
    patient = [item.item_id for item in due if item.strategy is Strategy.GROUP_ROUND_ROBIN]
    await key_store.let_wait(tx, key, patient)
    await key_store.admit(tx, [key])
    for item in due:
        match item.strategy:
            case Strategy.GROUP_ROUND_ROBIN:
                continue
            case Strategy.CANCEL_RUNNING:
                await _make_room(tx, key, item.max_running)
            case Strategy.CANCEL_NEWEST:
                if (await key_store.slots_taken(tx, [key]))[key] >= item.max_running:
                    await store.cancel(tx, key.organization_id, [item.item_id], "CONCURRENCY_LIMIT")
                    continue
        await key_store.let_wait(tx, key, [item.item_id])
        await key_store.admit(tx, [key])
