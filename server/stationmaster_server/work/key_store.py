"""Concurrency keys: who is let in, decided under a lock of the key's row, which is taken before any item's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.work.model import State


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
    """The live items of a locked key that nobody has asked to stop, the newest first."""
    sql = """
    SELECT item_id, state FROM work_items
    WHERE organization_id = $1 AND concurrency_key = $2 AND state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')
      AND NOT cancel_requested
    ORDER BY created_at DESC, item_id DESC
    """
    return [Member(row["item_id"], State(row["state"])) for row in await tx.fetch(sql, *key)]


# The next of a key go behind what is queued already (run_at), so that keys take turns. Should limits differ, each waits
# for all that wait before it, as if these had their slots.
_ADMIT = """
WITH waiting AS (
    SELECT i.organization_id, i.item_id, i.concurrency_key, i.max_running,
           row_number() OVER (PARTITION BY i.organization_id, i.concurrency_key
                              ORDER BY i.priority, i.created_at, i.item_id) AS place
    FROM work_items i
    JOIN (SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[])) AS k(organization_id, concurrency_key)
      ON i.organization_id = k.organization_id AND i.concurrency_key = k.concurrency_key
    WHERE i.state = 'WAITING' AND NOT i.paused
), admitted AS (
    SELECT w.organization_id, w.item_id FROM waiting w
    WHERE w.place <= w.max_running - (
        SELECT count(*) FROM work_items t
        WHERE t.organization_id = w.organization_id AND t.concurrency_key = w.concurrency_key
          AND t.state IN ('QUEUED', 'RUNNING', 'SUSPENDED')
    )
)
UPDATE work_items i SET state = 'QUEUED', run_at = greatest(i.run_at, now())
FROM admitted a WHERE i.organization_id = a.organization_id AND i.item_id = a.item_id
RETURNING i.item_id
"""


async def admit(tx: Transaction, keys: Iterable[Key]) -> int:
    """Give the free slots of locked keys to those that wait for them; returns how many were given."""
    ordered = sorted(set(keys))
    rows = await tx.fetch(_ADMIT, [key.organization_id for key in ordered], [key.name for key in ordered])
    return len(rows)


_STALLED = """
SELECT DISTINCT w.organization_id, w.concurrency_key FROM (
    SELECT i.organization_id, i.concurrency_key, i.max_running,
           row_number() OVER (PARTITION BY i.organization_id, i.concurrency_key
                              ORDER BY i.priority, i.created_at, i.item_id) AS place
    FROM work_items i WHERE i.concurrency_key IS NOT NULL AND i.state = 'WAITING' AND NOT i.paused
) w
WHERE w.place <= w.max_running - (
    SELECT count(*) FROM work_items t
    WHERE t.organization_id = w.organization_id AND t.concurrency_key = w.concurrency_key
      AND t.state IN ('QUEUED', 'RUNNING', 'SUSPENDED')
)
LIMIT 100
"""


async def with_unused_slots(tx: Transaction) -> list[Key]:
    """Keys with a free slot and somebody who waits for it: there should be none."""
    return [Key(row[0], row[1]) for row in await tx.fetch(_STALLED)]
