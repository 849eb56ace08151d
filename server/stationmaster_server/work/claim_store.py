"""The queries of workers: claim, heartbeat, settle, expire. Every write names the lease token that it relies on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from pydantic_core import to_json

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.work.key_store import Key
from stationmaster_server.work.model import State, WorkItem
from stationmaster_server.work.retry import Decision
from stationmaster_server.work.rows import CLAIMED_COLUMNS, COLUMNS, to_item

# Who goes first:
#   level  the lane's priority; the first of a lane goes up one for each ageing interval since it was due, or the
#          lane was last served: so nothing starves, and a long backlog does not outrun others by its age
#   turn   the first of every owner, then the second of every owner, ...; of equals, the owner served longest ago
#   run_at the oldest
# There are candidates to spare, for rows that another claim holds are skipped; of many lanes, fewer each.
#
# A queue is empty when statistics are gathered and long when it matters, so nothing here leaves the planner a choice
# that rests on them: LATERAL with LIMIT or OFFSET is a nested loop by index, and rows are locked and updated by ctid
# (which a row that is locked keeps; one that moved before it was locked is left to the next claim).
_CLAIM = f"""
WITH busy AS MATERIALIZED (
    SELECT lane.* FROM work_lanes lane CROSS JOIN LATERAL (
        SELECT FROM work_items i
        WHERE i.organization_id = lane.organization_id AND i.user_id = lane.user_id AND i.priority = lane.priority
          AND i.state = 'QUEUED' AND NOT i.paused AND i.run_at <= now() AND i.kind = ANY($1::text[])
        LIMIT 1
    ) first
), ready AS (
    SELECT lane.organization_id, lane.user_id, lane.priority, lane.served_at, i.place_on_disk, i.run_at,
           row_number() OVER (PARTITION BY lane.organization_id, lane.user_id, lane.priority ORDER BY i.run_at) AS place
    FROM busy lane CROSS JOIN LATERAL (
        SELECT i.ctid AS place_on_disk, i.run_at FROM work_items i
        WHERE i.organization_id = lane.organization_id AND i.user_id = lane.user_id AND i.priority = lane.priority
          AND i.state = 'QUEUED' AND NOT i.paused AND i.run_at <= now() AND i.kind = ANY($1::text[])
        ORDER BY i.run_at LIMIT ceil(2 * $2::bigint / sqrt((SELECT count(*) FROM busy)))
    ) i
), levelled AS (
    SELECT *, max(served_at) OVER (PARTITION BY organization_id, user_id) AS owner_served_at,
           CASE WHEN place > 1 THEN priority
                ELSE ceil(priority - date_part('epoch', now() - greatest(run_at, served_at)) / $3::float8)
           END AS level
    FROM ready
), candidates AS (
    SELECT *, row_number() OVER (PARTITION BY organization_id, user_id ORDER BY level, run_at) AS turn FROM levelled
    ORDER BY level, turn, owner_served_at NULLS FIRST, run_at
    LIMIT 4 * $2::bigint
), claimed AS (
    SELECT c.organization_id, c.user_id, c.priority, i.place_on_disk
    FROM candidates c CROSS JOIN LATERAL (
        SELECT i.ctid AS place_on_disk, i.state, i.paused FROM work_items i WHERE i.ctid = c.place_on_disk
        OFFSET 0 FOR UPDATE SKIP LOCKED
    ) i
    WHERE i.state = 'QUEUED' AND NOT i.paused
    LIMIT $2
), served AS (
    UPDATE work_lanes l SET served_at = now()
    WHERE l.ctid = ANY (ARRAY(
        SELECT locked.place_on_disk
        FROM (SELECT DISTINCT organization_id, user_id, priority FROM claimed) c CROSS JOIN LATERAL (
            SELECT l.ctid AS place_on_disk FROM work_lanes l
            WHERE l.organization_id = c.organization_id AND l.user_id = c.user_id AND l.priority = c.priority
            OFFSET 0 FOR UPDATE SKIP LOCKED
        ) locked
    ))
)
UPDATE work_items i
SET state = 'RUNNING', lease_token = gen_random_uuid(), worker = $4, attempt = attempt + 1,
    started_at = COALESCE(started_at, now()), lease_expires_at = now() + $5::interval,
    attempt_deadline = now() + attempt_timeout, heartbeat_deadline = now() + heartbeat_timeout,
    resume_requested = false, progress = NULL
WHERE i.ctid = ANY (ARRAY(SELECT c.place_on_disk FROM claimed c))
RETURNING {CLAIMED_COLUMNS}
"""


async def claim(
    tx: Transaction, kinds: Sequence[str], limit: int, ageing: timedelta, worker: str, lease: timedelta
) -> list[WorkItem]:
    """Take up to `limit` items, each under a fresh lease token."""
    rows = await tx.fetch(_CLAIM, list(kinds), limit, ageing.total_seconds(), worker, lease)
    return [to_item(row) for row in rows]


# Of one key, the n-th item of a claim gets the n-th slot from now. A slot in the future sends the item back into the
# queue, where it keeps its slot; one that it came too late for is worth nothing, or late ones would start together.
# What goes back has not been started.
_THROTTLE = """
WITH wanted AS (
    SELECT i.organization_id, i.item_id, i.rate_key, i.rate_spacing,
           row_number() OVER same_key AS place, count(*) OVER (PARTITION BY i.organization_id, i.rate_key) AS total
    FROM work_items i
    JOIN unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS c(organization_id, item_id, token)
      ON i.organization_id = c.organization_id AND i.item_id = c.item_id AND i.lease_token = c.token
    WHERE i.state = 'RUNNING' AND (i.rate_slot IS NULL OR i.rate_slot < now() - i.rate_spacing)
    WINDOW same_key AS (PARTITION BY i.organization_id, i.rate_key ORDER BY i.run_at, i.item_id)
), reserved AS (
    INSERT INTO work_rates AS r (organization_id, rate_key, next_at)
    SELECT organization_id, rate_key, now() + count(*) * max(rate_spacing) FROM wanted
    GROUP BY organization_id, rate_key ORDER BY organization_id, rate_key
    ON CONFLICT (organization_id, rate_key)
        DO UPDATE SET next_at = greatest(r.next_at, now()) + (excluded.next_at - now())
    RETURNING organization_id, rate_key, next_at
), slots AS (
    SELECT w.organization_id, w.item_id, r.next_at - (w.total - w.place + 1) * w.rate_spacing AS slot
    FROM wanted w JOIN reserved r ON r.organization_id = w.organization_id AND r.rate_key = w.rate_key
)
UPDATE work_items i
SET rate_slot = s.slot,
    state = CASE WHEN s.slot > now() THEN 'QUEUED' ELSE 'RUNNING' END,
    run_at = greatest(i.run_at, s.slot),
    attempt = i.attempt - CASE WHEN s.slot > now() THEN 1 ELSE 0 END,
    started_at = CASE WHEN s.slot > now() AND i.attempt = 1 THEN NULL ELSE i.started_at END
FROM slots s WHERE i.organization_id = s.organization_id AND i.item_id = s.item_id
RETURNING i.item_id, i.state
"""


async def throttle(tx: Transaction, items: Sequence[WorkItem]) -> set[UUID]:
    """Claimed items that have a rate key: those that may not start yet go back, and are returned."""
    rows = await tx.fetch(
        _THROTTLE,
        [item.organization_id for item in items],
        [item.item_id for item in items],
        [item.lease_token for item in items],
    )
    return {row["item_id"] for row in rows if row["state"] == State.QUEUED}


class Beat(NamedTuple):
    """A heartbeat: `renew` extends the lease; `progress` is JSON text, None for none; `alive`: the handler said so."""

    organization_id: UUID
    item_id: UUID
    lease_token: UUID
    renew: bool
    alive: bool
    progress: str | None


class Seen(NamedTuple):
    """What a heartbeat brings back. `renewed`: the lease was extended, and what the handler said is stored."""

    held: bool
    renewed: bool
    cancel_requested: bool
    paused: bool


# An item that somebody's transaction holds locked is not waited for (it would take the other leases with it): its
# renewal comes with the next beat. What is seen is the state before this statement.
_BEAT = """
WITH beats AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bool[], $5::bool[], $6::text[]) WITH ORDINALITY
        AS b(organization_id, item_id, token, renew, alive, progress, ordinal)
), locked AS (
    SELECT i.organization_id, i.item_id, b.alive, b.progress, b.ordinal
    FROM work_items i JOIN beats b ON i.organization_id = b.organization_id AND i.item_id = b.item_id
    WHERE b.renew AND i.lease_token = b.token AND i.state = 'RUNNING'
    ORDER BY i.item_id FOR UPDATE OF i SKIP LOCKED
), renewed AS (
    UPDATE work_items i
    SET lease_expires_at = now() + $7::interval, progress = COALESCE(l.progress::json, i.progress),
        heartbeat_deadline = CASE WHEN l.alive THEN now() + i.heartbeat_timeout ELSE i.heartbeat_deadline END
    FROM locked l WHERE i.organization_id = l.organization_id AND i.item_id = l.item_id
    RETURNING l.ordinal
)
SELECT i.lease_token IS NOT DISTINCT FROM b.token AND i.state = 'RUNNING' AS held, r.ordinal IS NOT NULL AS renewed,
       i.cancel_requested, i.paused
FROM beats b LEFT JOIN work_items i ON i.organization_id = b.organization_id AND i.item_id = b.item_id
LEFT JOIN renewed r ON r.ordinal = b.ordinal
ORDER BY b.ordinal
"""


async def beat(tx: Transaction, beats: Sequence[Beat], lease: timedelta) -> list[Seen]:
    """Heartbeats of many items in one statement; an answer for each, in order."""
    rows = await tx.fetch(
        _BEAT,
        [beat.organization_id for beat in beats],
        [beat.item_id for beat in beats],
        [beat.lease_token for beat in beats],
        [beat.renew for beat in beats],
        [beat.alive for beat in beats],
        [beat.progress for beat in beats],
        lease,
    )
    return [Seen(*map(bool, row)) for row in rows]


class Settlement(NamedTuple):
    """The end of an attempt. `token` is that of its lease, None for an item that is not RUNNING."""

    organization_id: UUID
    item_id: UUID
    lease_token: UUID | None
    concurrency_key: str | None
    decision: Decision

    def key(self) -> Key | None:
        """Its concurrency key."""
        return None if self.concurrency_key is None else Key(self.organization_id, self.concurrency_key)


_EXPIRED = """
    (i.state = 'RUNNING' AND (i.lease_expires_at < now() OR i.attempt_deadline < now() OR i.heartbeat_deadline < now()
                              OR i.close_deadline < now()))
    OR (i.state IN ('WAITING', 'QUEUED', 'SUSPENDED') AND least(i.start_deadline, i.close_deadline) < now())
"""

# How many errors an item keeps; past it the first ones stay and the newest: the one before them makes room.
MOST_ERRORS, FIRST_ERRORS = 100, 10

# What was asked to be cancelled is not queued again; what was resumed before it suspended itself is. Of whatever had an
# attempt, the limit for the first to begin is over.
_SETTLE = f"""
WITH wanted AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::float8[], $6::timestamptz[], $7::text[], $8::text[],
        $9::text[], $10::bool[]
    ) AS w(organization_id, item_id, token, state, delay_seconds, run_at, reason, result, error, refund)
), held AS (
    SELECT i.organization_id, i.item_id,
           CASE WHEN i.cancel_requested AND w.state IN ('QUEUED', 'SUSPENDED') THEN 'CANCELLED'
                WHEN i.resume_requested AND w.state = 'SUSPENDED' THEN 'QUEUED'
                ELSE w.state END AS state,
           w.delay_seconds, w.run_at, w.reason, w.result, w.error, w.refund
    FROM work_items i JOIN wanted w ON i.organization_id = w.organization_id AND i.item_id = w.item_id
    WHERE CASE WHEN $11 THEN ({_EXPIRED}) AND (i.state <> 'RUNNING' OR i.lease_token = w.token)
               ELSE i.state = 'RUNNING' AND i.lease_token = w.token END
    ORDER BY i.item_id FOR UPDATE OF i
)
UPDATE work_items i
SET state = h.state,
    reason = CASE WHEN h.state = 'CANCELLED' THEN COALESCE(h.reason, i.reason) ELSE h.reason END,
    run_at = CASE WHEN h.state = 'QUEUED' THEN COALESCE(h.run_at, now() + h.delay_seconds * interval '1 second')
                  ELSE i.run_at END,
    finished_at = CASE WHEN h.state IN ('SUCCEEDED', 'CANCELLED', 'DEAD') THEN now() END,
    result = COALESCE(h.result::json, i.result),
    errors = CASE WHEN h.error IS NULL THEN i.errors
                  ELSE CASE WHEN jsonb_array_length(i.errors) < {MOST_ERRORS} THEN i.errors
                            ELSE i.errors - {FIRST_ERRORS} END
                       || (h.error::jsonb || jsonb_build_object('at', now(), 'worker', i.worker)) END,
    attempt = i.attempt - CASE WHEN h.refund THEN 1 ELSE 0 END,
    start_deadline = NULL, rate_slot = NULL,
    lease_expires_at = NULL, attempt_deadline = NULL, heartbeat_deadline = NULL
FROM held h WHERE i.organization_id = h.organization_id AND i.item_id = h.item_id
RETURNING i.item_id, i.state
"""


async def settle(tx: Transaction, settlements: Sequence[Settlement], *, expired: bool = False) -> dict[UUID, State]:
    """End attempts whose lease is still held (`expired`: whose time is up); the states that followed, by item.

    The keys of those that may end for good must be locked.
    """
    decisions = [settlement.decision for settlement in settlements]
    rows = await tx.fetch(
        _SETTLE,
        [settlement.organization_id for settlement in settlements],
        [settlement.item_id for settlement in settlements],
        [settlement.lease_token for settlement in settlements],
        [decision.state.value for decision in decisions],
        [decision.delay_seconds for decision in decisions],
        [decision.run_at for decision in decisions],
        [decision.reason for decision in decisions],
        [None if decision.result is None else to_json(decision.result).decode() for decision in decisions],
        [None if decision.error is None else to_json(decision.error).decode() for decision in decisions],
        [decision.refund for decision in decisions],
        expired,
    )
    return {row[0]: State(row[1]) for row in rows}


_OF_FREE_KEYS = """(
    concurrency_key IS NULL OR (organization_id, concurrency_key) NOT IN (SELECT * FROM unnest($3::uuid[], $4::text[]))
)"""
_FIND_EXPIRED = f"""
SELECT {COLUMNS},
       CASE WHEN i.close_deadline < now() THEN 'SCHEDULE_TO_CLOSE'
            WHEN i.state <> 'RUNNING' AND i.start_deadline < now() THEN 'SCHEDULE_TO_START'
            WHEN i.attempt_deadline < now() THEN 'START_TO_CLOSE'
            WHEN i.heartbeat_deadline < now() THEN 'HEARTBEAT'
            ELSE 'LEASE_EXPIRED' END AS cause
FROM work_items i
WHERE (i.organization_id, i.item_id) IN (
    SELECT organization_id, item_id FROM work_items
    WHERE {_OF_FREE_KEYS} AND state = 'RUNNING' AND (lease_expires_at < now() AND NOT $2 OR attempt_deadline < now()
                                 OR heartbeat_deadline < now() OR close_deadline < now())
    UNION ALL
    SELECT organization_id, item_id FROM work_items
    WHERE {_OF_FREE_KEYS} AND state IN ('WAITING', 'QUEUED', 'SUSPENDED')
      AND (start_deadline IS NOT NULL OR close_deadline IS NOT NULL)
      AND least(start_deadline, close_deadline) < now()
    LIMIT $1
)
"""


async def find_expired(
    tx: Transaction, limit: int, *, spare_leases: bool = False, without: Collection[Key] = ()
) -> list[tuple[WorkItem, str]]:
    """Items whose time is up, each with what is up; `spare_leases`: a lease alone is no cause; `without` some keys."""
    left_out = sorted(without)
    rows = await tx.fetch(
        _FIND_EXPIRED,
        limit,
        spare_leases,
        [key.organization_id for key in left_out],
        [key.name for key in left_out],
    )
    return [(to_item(row), row["cause"]) for row in rows]


_UNUSED_LANES = """
DELETE FROM work_lanes l
WHERE l.used_at < now() - interval '10 minutes' AND NOT EXISTS (
    SELECT FROM work_items i
    WHERE i.organization_id = l.organization_id AND i.user_id = l.user_id AND i.priority = l.priority
      AND i.state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')
)
"""
_UNUSED_KEYS = """
DELETE FROM work_keys k
WHERE k.used_at < now() - interval '10 minutes' AND NOT EXISTS (
    SELECT FROM work_items i
    WHERE i.organization_id = k.organization_id AND i.concurrency_key = k.concurrency_key
      AND i.state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')
)
"""


async def forget_unused(tx: Transaction) -> None:
    """Delete lanes and keys that have no items and were not used of late; and rates that are past.

    Who uses one meanwhile has renewed `used_at`, which is looked at again under the row's lock.
    """
    await tx.execute(_UNUSED_LANES)
    await tx.execute(_UNUSED_KEYS)
    await tx.execute("DELETE FROM work_rates WHERE next_at < now() - interval '10 minutes'")
