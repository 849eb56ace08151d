"""Concurrency keys: who is let in, decided under a lock of the key's row, which is taken before any item's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.work.model import State, Strategy


class Key(NamedTuple):
    """A concurrency key of an organization."""

    organization_id: UUID
    name: str


async def lock_new(tx: Transaction, keys: Iterable[Key]) -> None:
    """Lock keys for submissions, making them where they are missing."""
    ordered = sorted(set(keys))
    await tx.execute(
        "INSERT INTO work_keys (organization_id, concurrency_key)"
        " SELECT * FROM unnest($1::uuid[], $2::text[])"
        " ON CONFLICT (organization_id, concurrency_key) DO UPDATE SET used_at = now()",
        [key.organization_id for key in ordered],
        [key.name for key in ordered],
    )


async def lock(tx: Transaction, keys: Iterable[Key]) -> None:
    """Lock keys that have items."""
    ordered = sorted(set(keys))
    await tx.execute(
        "SELECT FROM work_keys"
        " WHERE (organization_id, concurrency_key) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))"
        ' ORDER BY organization_id, concurrency_key COLLATE "C" FOR UPDATE',  # the order of `sorted`
        [key.organization_id for key in ordered],
        [key.name for key in ordered],
    )


async def lock_free(tx: Transaction, keys: Iterable[Key]) -> set[Key]:
    """Lock those of the keys that nobody else holds, and return them; nobody is waited for."""
    ordered = sorted(set(keys))
    rows = await tx.fetch(
        "SELECT organization_id, concurrency_key FROM work_keys"
        " WHERE (organization_id, concurrency_key) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))"
        " FOR UPDATE SKIP LOCKED",
        [key.organization_id for key in ordered],
        [key.name for key in ordered],
    )
    return {Key(row[0], row[1]) for row in rows}


async def slots_taken(tx: Transaction, keys: Iterable[Key]) -> dict[Key, int]:
    """How many items of each of the locked keys hold a slot."""
    ordered = sorted(set(keys))
    sql = """
    SELECT k.organization_id, k.concurrency_key, (
        SELECT count(*) FROM work_items i
        WHERE i.organization_id = k.organization_id AND i.concurrency_key = k.concurrency_key
          AND i.state IN ('QUEUED', 'RUNNING', 'SUSPENDED')
    )
    FROM unnest($1::uuid[], $2::text[]) AS k(organization_id, concurrency_key)
    """
    rows = await tx.fetch(sql, [key.organization_id for key in ordered], [key.name for key in ordered])
    return {Key(row[0], row[1]): row[2] for row in rows}


class Member(NamedTuple):
    """A live item of a key."""

    item_id: UUID
    state: State


async def not_cancelled(tx: Transaction, key: Key) -> list[Member]:
    """The live items of a locked key that nobody has asked to stop and that are not to run later, the newest first."""
    sql = """
    SELECT item_id, state FROM work_items
    WHERE organization_id = $1 AND concurrency_key = $2 AND state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')
      AND NOT cancel_requested AND deferred IS NULL
    ORDER BY created_at DESC, item_id DESC
    """
    return [Member(row["item_id"], State(row["state"])) for row in await tx.fetch(sql, *key)]


# Who waits for a slot of its key: what is held back, or is to run later, does not.
_WAITS = "i.state = 'WAITING' AND i.deferred IS NULL AND NOT i.paused"

# Should limits differ, each waits for all that wait before it, as if these had their slots. However many wait, only so
# many are looked at as could be let in.
_ADMISSIBLE = f"""
CROSS JOIN LATERAL (
    SELECT count(*) AS slots FROM work_items t
    WHERE t.organization_id = k.organization_id AND t.concurrency_key = k.concurrency_key
      AND t.state IN ('QUEUED', 'RUNNING', 'SUSPENDED')
) taken
CROSS JOIN LATERAL (
    SELECT i.max_running FROM work_items i
    WHERE i.organization_id = k.organization_id AND i.concurrency_key = k.concurrency_key AND {_WAITS}
    ORDER BY i.max_running DESC LIMIT 1
) highest
CROSS JOIN LATERAL (
    SELECT next.item_id, next.max_running,
           row_number() OVER (ORDER BY next.priority, next.run_at, next.item_id) AS place
    FROM (
        SELECT i.item_id, i.max_running, i.priority, i.run_at FROM work_items i
        WHERE i.organization_id = k.organization_id AND i.concurrency_key = k.concurrency_key AND {_WAITS}
        ORDER BY i.priority, i.run_at, i.item_id LIMIT greatest(highest.max_running - taken.slots, 0)
    ) next
) waiting
WHERE waiting.place <= waiting.max_running - taken.slots
"""

# The next of a key go behind what is queued already (run_at), so that keys take turns.
_ADMIT = f"""
WITH k AS (SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[]) AS k(organization_id, concurrency_key)),
admitted AS MATERIALIZED (SELECT k.organization_id, waiting.item_id FROM k {_ADMISSIBLE})
UPDATE work_items i SET state = 'QUEUED', run_at = greatest(i.run_at, now())
FROM admitted a
WHERE i.organization_id = a.organization_id AND i.item_id = a.item_id AND {_WAITS}
  -- The same once more, for the planner, which else reads the whole table when it expects many.
  AND i.organization_id = ANY (ARRAY(SELECT DISTINCT organization_id FROM admitted))
  AND i.item_id = ANY (ARRAY(SELECT item_id FROM admitted))
RETURNING i.item_id
"""


async def admit(tx: Transaction, keys: Iterable[Key]) -> int:
    """Give the free slots of locked keys to those that wait for them; returns how many were given."""
    ordered = sorted(set(keys))
    rows = await tx.fetch(_ADMIT, [key.organization_id for key in ordered], [key.name for key in ordered])
    return len(rows)


_STALLED = f"""
WITH k AS (SELECT DISTINCT i.organization_id, i.concurrency_key FROM work_items i WHERE {_WAITS})
SELECT DISTINCT k.organization_id, k.concurrency_key FROM k {_ADMISSIBLE}
LIMIT 100
"""


async def with_unused_slots(tx: Transaction) -> list[Key]:
    """Keys with a free slot and somebody who waits for it: there should be none."""
    return [Key(row[0], row[1]) for row in await tx.fetch(_STALLED)]


_DUE = """
SELECT DISTINCT i.organization_id, i.concurrency_key FROM (
    SELECT organization_id, concurrency_key FROM work_items
    WHERE state = 'WAITING' AND deferred IS NOT NULL AND NOT paused AND run_at <= now()
      AND (organization_id, concurrency_key) NOT IN (SELECT * FROM unnest($2::uuid[], $3::text[]))
    ORDER BY run_at LIMIT $1
) i
"""


async def with_due_items(tx: Transaction, limit: int, *, without: Collection[Key] = ()) -> list[Key]:
    """The keys, `without` some, of the first items that were to run later and whose time has come."""
    left_out = sorted(without)
    rows = await tx.fetch(_DUE, limit, [key.organization_id for key in left_out], [key.name for key in left_out])
    return [Key(row[0], row[1]) for row in rows]


class Arrival(NamedTuple):
    """An item whose time has come."""

    item_id: UUID
    strategy: Strategy
    max_running: int


async def due_items(tx: Transaction, key: Key, limit: int) -> list[Arrival]:
    """Items of a locked key that were to run later and whose time has come, in its order."""
    sql = """
    SELECT item_id, deferred, max_running FROM work_items
    WHERE organization_id = $1 AND concurrency_key = $2 AND state = 'WAITING' AND deferred IS NOT NULL AND NOT paused
      AND run_at <= now()
    ORDER BY run_at, item_id LIMIT $3
    """
    return [Arrival(row[0], Strategy(row[1]), row[2]) for row in await tx.fetch(sql, *key, limit)]


async def let_wait(tx: Transaction, key: Key, item_ids: Sequence[UUID]) -> None:
    """From now on, these items of a locked key, whose time has come, wait for its slots, as if they had come now."""
    await tx.execute(
        "UPDATE work_items SET deferred = NULL, created_at = now()"
        " WHERE organization_id = $1 AND item_id = ANY($2::uuid[])",
        key.organization_id,
        list(item_ids),
    )
