"""The queries of submission and of looking after items; workers have `claim_store.py`, keys `key_store.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.work.model import NewWork, QueueStats, State, WorkItem
from stationmaster_server.work.rows import COLUMNS, from_policy, to_item


class Lease(NamedTuple):
    """A lease taken with the submission."""

    token: UUID
    worker: str
    duration: timedelta


class Row(NamedTuple):
    """What differs between items that are otherwise alike."""

    item_id: UUID
    subject_id: UUID
    payload: dict[str, Any]


# A lane's row is written when it is missing, and every five minutes to show that it is in use.
_INSERT = """
WITH lane AS (
    INSERT INTO work_lanes AS l (organization_id, user_id, priority)
    SELECT $4::uuid, $5::uuid, $8::smallint
    WHERE NOT EXISTS (
        SELECT FROM work_lanes l
        WHERE l.organization_id = $4::uuid AND l.user_id = $5::uuid AND l.priority = $8::smallint
          AND l.used_at > now() - interval '5 minutes'
    )
    ON CONFLICT (organization_id, user_id, priority) DO UPDATE SET used_at = now()
)
INSERT INTO work_items AS i (
    organization_id, user_id, item_id, kind, subject_id, state, priority, payload, concurrency_key, max_running,
    idempotency_key, idempotency_expires_at, rate_key, rate_spacing, retry, run_at, start_deadline, close_deadline,
    close_timeout, attempt_timeout, heartbeat_timeout, finished_at, reason, follow_up, paused, deferred,
    lease_token, worker, attempt, started_at, lease_expires_at, attempt_deadline, heartbeat_deadline
)
SELECT
    $4::uuid, $5::uuid, n.item_id, $6::text, n.subject_id, $7::text, $8::smallint, n.payload::json, $9::text, $10::int,
    $11::text, CASE WHEN $11::text IS NOT NULL THEN now() + $12::interval END, $13::text, $14::interval, $15::json,
    greatest($16::timestamptz, now()),
    CASE WHEN $21::uuid IS NULL THEN now() + $17::interval END, now() + $18::interval,
    $18::interval, $19::interval, $20::interval,
    CASE WHEN $7::text = 'CANCELLED' THEN now() END, CASE WHEN $7::text = 'CANCELLED' THEN 'CONCURRENCY_LIMIT' END,
    $24::boolean, $25::boolean, CASE WHEN $7::text = 'WAITING' AND $16::timestamptz > now() THEN $26::text END,
    $21::uuid, $22::text, CASE WHEN $21::uuid IS NULL THEN 0 ELSE 1 END, CASE WHEN $21::uuid IS NOT NULL THEN now() END,
    now() + $23::interval, CASE WHEN $21::uuid IS NOT NULL THEN now() + $19::interval END,
    CASE WHEN $21::uuid IS NOT NULL THEN now() + $20::interval END
FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS n(item_id, subject_id, payload)
ON CONFLICT DO NOTHING
RETURNING i.item_id, i.created_at, i.run_at
"""


async def insert(
    tx: Transaction, like: NewWork, rows: Sequence[Row], state: State, lease: Lease | None = None
) -> dict[UUID, WorkItem]:
    """Insert items that are like `like`; those whose id or idempotency key is taken are left out.

    With a lease, which is for one item, it begins RUNNING.
    """
    inserted = await tx.fetch(
        _INSERT,
        [row.item_id for row in rows],
        [row.subject_id for row in rows],
        [to_json(row.payload).decode() for row in rows],
        like.organization_id,
        like.user_id,
        like.kind,
        state.value,
        like.priority.value,
        like.concurrency_key,
        like.max_running,
        like.idempotency_key,
        like.idempotency_ttl,
        like.rate.key if like.rate else None,
        like.rate.per / like.rate.limit if like.rate else None,
        from_policy(like.retry),
        like.run_at,
        like.timeouts.schedule_to_start,
        like.timeouts.schedule_to_close,
        like.timeouts.start_to_close,
        like.timeouts.heartbeat,
        *(lease or (None, None, None)),
        like.follow_up,
        like.paused,
        like.strategy.value,
    )
    by_id = {row.item_id: row for row in rows}
    return {
        item_id: new_item(like, by_id[item_id], state, created_at, run_at, lease)
        for item_id, created_at, run_at in inserted
    }


def new_item(
    like: NewWork, row: Row, state: State, created_at: datetime, run_at: datetime, lease: Lease | None
) -> WorkItem:
    """The item that was inserted."""
    return WorkItem(
        organization_id=like.organization_id,
        user_id=like.user_id,
        item_id=row.item_id,
        kind=like.kind,
        subject_id=row.subject_id,
        state=state,
        reason="CONCURRENCY_LIMIT" if state is State.CANCELLED else None,
        priority=like.priority.value,
        paused=like.paused,
        payload=row.payload,
        concurrency_key=like.concurrency_key,
        rate_key=like.rate.key if like.rate else None,
        retry=like.retry,
        attempt=1 if lease else 0,
        run_at=run_at,
        created_at=created_at,
        started_at=created_at if lease else None,
        finished_at=created_at if state is State.CANCELLED else None,
        cancel_requested=False,
        progress=None,
        result=None,
        errors=[],
        attempt_timeout=like.timeouts.start_to_close,
        lease_token=lease.token if lease else None,
    )


async def get(tx: Transaction, organization_id: UUID, item_id: UUID) -> WorkItem | None:
    """An item."""
    sql = f"SELECT {COLUMNS} FROM work_items i WHERE i.organization_id = $1 AND i.item_id = $2"
    row = await tx.fetchrow(sql, organization_id, item_id)
    return None if row is None else to_item(row)


async def is_later(tx: Transaction, moment: datetime | None) -> bool:
    """Whether a time is still to come, by the database's clock; None: no."""
    return moment is not None and bool(await tx.fetchval("SELECT $1::timestamptz > now()", moment))


async def keys_of(tx: Transaction, organization_id: UUID, item_ids: Sequence[UUID]) -> list[str]:
    """The concurrency keys that items have."""
    sql = """
    SELECT DISTINCT concurrency_key FROM work_items
    WHERE organization_id = $1 AND item_id = ANY($2::uuid[]) AND concurrency_key IS NOT NULL
    """
    return [row[0] for row in await tx.fetch(sql, organization_id, list(item_ids))]


async def of_idempotency_key(tx: Transaction, organization_id: UUID, key: str) -> WorkItem | None:
    """The item that was submitted with a key which has not expired; an expired one gives its key back."""
    await tx.execute(
        "UPDATE work_items SET idempotency_key = NULL"
        " WHERE organization_id = $1 AND idempotency_key = $2 AND idempotency_expires_at <= now()",
        organization_id,
        key,
    )
    sql = f"SELECT {COLUMNS} FROM work_items i WHERE i.organization_id = $1 AND i.idempotency_key = $2"
    row = await tx.fetchrow(sql, organization_id, key)
    return None if row is None else to_item(row)


async def delete(tx: Transaction, organization_id: UUID, item_id: UUID) -> None:
    """Remove an item; a worker that has it finds its lease lost."""
    await tx.execute("DELETE FROM work_items WHERE organization_id = $1 AND item_id = $2", organization_id, item_id)


async def delete_dead(tx: Transaction, organization_id: UUID, item_id: UUID) -> None:
    """Remove an item if it is dead."""
    await tx.execute(
        "DELETE FROM work_items WHERE organization_id = $1 AND item_id = $2 AND state = 'DEAD'",
        organization_id,
        item_id,
    )


async def count_queued(tx: Transaction, organization_id: UUID, at_most: int) -> int:
    """How many items of an organization wait for a worker or a slot; counts no further than `at_most`."""
    sql = """
    SELECT count(*) FROM (
        SELECT FROM work_items WHERE organization_id = $1 AND state IN ('QUEUED', 'WAITING') LIMIT $2
    ) AS queued
    """
    return int(await tx.fetchval(sql, organization_id, at_most))


# Changes find their rows by the primary key, lock them, and only then look at the state (see the claim).
_LOCKED = """
WITH locked AS (
    SELECT organization_id, item_id, state AS old_state FROM work_items
    WHERE organization_id = $1 AND item_id = ANY($2::uuid[])
    ORDER BY item_id FOR UPDATE
)
"""

_CANCEL = f"""
{_LOCKED}
UPDATE work_items i
SET cancel_requested = true,
    state = CASE WHEN state = 'RUNNING' THEN state ELSE 'CANCELLED' END,
    finished_at = CASE WHEN state = 'RUNNING' THEN NULL ELSE now() END,
    reason = $3,
    errors = CASE WHEN $4 = '' THEN errors ELSE errors || jsonb_build_object(
        'attempt', attempt, 'error', $4::text, 'reason', $3::text, 'at', now()) END
FROM locked l
WHERE i.organization_id = l.organization_id AND i.item_id = l.item_id
  AND l.old_state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')
RETURNING {COLUMNS}
"""


async def cancel(
    tx: Transaction, organization_id: UUID, item_ids: Sequence[UUID], reason: str, why: str = ""
) -> list[WorkItem]:
    """Cancel what is not RUNNING, ask what is to stop; what has ended is left out. The keys must be locked.

    `why`, the reason for people, is kept with the errors.
    """
    return [to_item(row) for row in await tx.fetch(_CANCEL, organization_id, list(item_ids), reason, why)]


_RESUME = f"""
{_LOCKED}
UPDATE work_items i
SET state = CASE WHEN state = 'SUSPENDED' THEN 'QUEUED' ELSE state END,
    run_at = CASE WHEN state = 'SUSPENDED' THEN now() ELSE run_at END,
    resume_requested = (state = 'RUNNING')
FROM locked l
WHERE i.organization_id = l.organization_id AND i.item_id = l.item_id AND l.old_state IN ('RUNNING', 'SUSPENDED')
RETURNING {COLUMNS}
"""


async def resume(tx: Transaction, organization_id: UUID, item_id: UUID) -> WorkItem | None:
    """Queue a suspended item; one that is about to suspend itself (still RUNNING) will be queued instead."""
    row = await tx.fetchrow(_RESUME, organization_id, [item_id])
    return None if row is None else to_item(row)


_PAUSE = f"""
{_LOCKED}
UPDATE work_items i SET paused = $3 FROM locked l
WHERE i.organization_id = l.organization_id AND i.item_id = l.item_id
  AND l.old_state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')
RETURNING {COLUMNS}
"""


async def set_paused(tx: Transaction, organization_id: UUID, item_id: UUID, paused: bool) -> WorkItem | None:
    """Hold an item back, or let it go on; None when it has ended or is not there."""
    row = await tx.fetchrow(_PAUSE, organization_id, [item_id], paused)
    return None if row is None else to_item(row)


_DEAD = f"""
SELECT {COLUMNS} FROM work_items i
WHERE i.organization_id = $1 AND i.state = 'DEAD'
  AND ($2::text IS NULL OR i.kind = $2)
  AND ($3::timestamptz IS NULL OR (i.finished_at, i.item_id) < ($3, $4::uuid))
  AND ($6::uuid IS NULL OR i.user_id = $6)
ORDER BY i.finished_at DESC, i.item_id DESC LIMIT $5
"""


async def list_dead(
    tx: Transaction,
    organization_id: UUID,
    kind: str | None = None,
    *,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 50,
    owner: UUID | None = None,
) -> list[WorkItem]:
    """Dead items (of `owner` only), the newest first, after (finished_at, item_id) of the last one seen."""
    finished_at, item_id = after or (None, None)
    rows = await tx.fetch(_DEAD, organization_id, kind, finished_at, item_id, limit, owner)
    return [to_item(row) for row in rows]


_REVIVE = f"""
{_LOCKED}
UPDATE work_items i
SET state = CASE WHEN concurrency_key IS NULL THEN 'QUEUED' ELSE 'WAITING' END, attempt = 0,
    run_at = now() + (array_position($2::uuid[], i.item_id) - 1) * interval '1 microsecond',  -- in the order given
    started_at = NULL, finished_at = NULL, reason = NULL, cancel_requested = false, resume_requested = false,
    rate_slot = NULL, followed_up = false, paused = false, deferred = NULL,
    start_deadline = NULL, close_deadline = now() + close_timeout
FROM locked l
WHERE i.organization_id = l.organization_id AND i.item_id = l.item_id AND l.old_state = 'DEAD'
  AND (i.followed_up OR NOT i.follow_up)
RETURNING {COLUMNS}
"""


async def revive(tx: Transaction, organization_id: UUID, item_ids: Sequence[UUID]) -> list[WorkItem]:
    """Queue dead items again with all their attempts, in this order; those with a key wait to be admitted.

    None is held back. One whose end is not followed up yet stays as it is: of every end is told. The keys must be
    locked.
    """
    return [to_item(row) for row in await tx.fetch(_REVIVE, organization_id, list(item_ids))]


async def touch_lanes(tx: Transaction, items: Sequence[WorkItem]) -> None:
    """See to it that the items' lanes exist."""
    await tx.execute(
        "INSERT INTO work_lanes (organization_id, user_id, priority)"
        " SELECT DISTINCT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[])"
        " ON CONFLICT (organization_id, user_id, priority) DO UPDATE SET used_at = now()",
        [item.organization_id for item in items],
        [item.user_id for item in items],
        [item.priority for item in items],
    )


async def stats(tx: Transaction, organization_id: UUID, *, owner: UUID | None = None) -> list[QueueStats]:
    """What an organization (or `owner` of it) has in the queue, with workers, suspended and dead."""
    sql = """
    SELECT kind, state, count(*) AS count, min(run_at) AS oldest FROM work_items
    WHERE organization_id = $1 AND state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED', 'DEAD')
      AND ($2::uuid IS NULL OR user_id = $2)
    GROUP BY kind, state ORDER BY kind, state
    """
    rows = await tx.fetch(sql, organization_id, owner)
    return [QueueStats(row["kind"], State(row["state"]), row["count"], row["oldest"]) for row in rows]
