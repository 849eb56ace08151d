"""The queries of the clean-up. Every one is of one organization, and deletes a bounded number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from stationmaster_server.db.transaction import Transaction

# Kept are: what is not over or not followed up, what a repeated submission may be answered with, what a report is being
# made of, and the newest of each task, by which dependencies on it are decided.
_ENDED = """(i.state IN ('SUCCEEDED', 'CANCELLED', 'DEAD') AND i.finished_at < $2 AND (NOT i.follow_up OR i.followed_up)
     AND (i.idempotency_key IS NULL OR i.idempotency_expires_at < now()))"""
_OLD = f"""executions e LEFT JOIN work_items i ON i.organization_id = $1 AND i.item_id = e.id
WHERE e.organization_id = $1 AND e.created_at < $2 AND (i.item_id IS NULL OR {_ENDED})
  AND e.id NOT IN (SELECT r.subject_id FROM work_items r WHERE r.organization_id = $1 AND r.kind = 'task_report'
                   AND r.state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED'))
  AND (e.task_id IS NULL
       OR NOT EXISTS (SELECT FROM tasks t WHERE t.organization_id = $1 AND t.task_id = e.task_id
                      AND t.uid = e.task_uid)
       OR EXISTS (SELECT FROM executions n WHERE n.organization_id = $1 AND n.task_uid = e.task_uid
                  AND (n.created_at, n.id) > (e.created_at, e.id)))"""


async def old_executions(tx: Transaction, organization_id: UUID, before: datetime, limit: int) -> list[UUID]:
    """Executions that ended before a time and that nobody needs, the oldest first."""
    rows = await tx.fetch(
        f"SELECT e.id FROM {_OLD} ORDER BY e.created_at, e.id LIMIT $3", organization_id, before, limit
    )
    return [row["id"] for row in rows]


async def count_executions(tx: Transaction, organization_id: UUID, before: datetime) -> int:
    """How many there are of these."""
    return int(await tx.fetchval(f"SELECT count(*) FROM {_OLD}", organization_id, before))


async def delete_executions(
    tx: Transaction, organization_id: UUID, before: datetime, ids: Sequence[UUID]
) -> tuple[list[UUID], int]:
    """Delete those of the executions that are still over, with their work items and reports; returns these, and how
    many reports they had. Their events and pages are then nobody's.
    """
    locked = await tx.fetch(
        f"""SELECT i.item_id FROM work_items i WHERE i.organization_id = $1 AND i.item_id = ANY($3::uuid[])
            AND {_ENDED} ORDER BY i.item_id FOR UPDATE""",
        organization_id,
        before,
        list(ids),
    )
    over = [row["item_id"] for row in locked]
    rows = await tx.fetch(
        """DELETE FROM executions e WHERE e.organization_id = $1 AND e.id = ANY($2::uuid[])
           AND (e.id = ANY($3::uuid[])
                OR NOT EXISTS (SELECT FROM work_items i WHERE i.organization_id = $1 AND i.item_id = e.id))
           RETURNING e.id""",
        organization_id,
        list(ids),
        over,
    )
    gone = [row["id"] for row in rows]
    await tx.execute(
        "DELETE FROM work_items WHERE organization_id = $1 AND item_id = ANY($2::uuid[])", organization_id, gone
    )
    tag = await tx.execute(
        "DELETE FROM reports WHERE organization_id = $1 AND execution_id = ANY($2::uuid[])", organization_id, gone
    )
    return gone, _count(tag)


async def stray_streams(tx: Transaction, organization_id: UUID, before: datetime, limit: int) -> list[UUID]:
    """Streams whose execution was deleted by a clean-up that did not get further."""
    rows = await tx.fetch(
        """SELECT s.stream_id FROM streams s WHERE s.organization_id = $1 AND s.created_at < $2
           AND NOT EXISTS (SELECT FROM executions e WHERE e.organization_id = $1 AND e.id = s.stream_id)
           AND NOT EXISTS (SELECT FROM sessions x WHERE x.organization_id = $1 AND x.id = s.stream_id) LIMIT $3""",
        organization_id,
        before,
        limit,
    )
    return [row["stream_id"] for row in rows]


async def delete_events(tx: Transaction, organization_id: UUID, stream_ids: Sequence[UUID], limit: int) -> int:
    """Delete some events of streams; returns how many: less than `limit` when none are left."""
    tag = await tx.execute(
        """DELETE FROM events e USING (
               SELECT stream_id, sequence, created_at FROM events
               WHERE organization_id = $1 AND stream_id = ANY($2::uuid[]) LIMIT $3
           ) d
           WHERE e.organization_id = $1 AND e.stream_id = d.stream_id AND e.sequence = d.sequence
             AND e.created_at = d.created_at""",
        organization_id,
        list(stream_ids),
        limit,
    )
    return _count(tag)


async def delete_pages(tx: Transaction, organization_id: UUID, execution_ids: Sequence[UUID], limit: int) -> int:
    """Delete some pages of crawls; returns how many: less than `limit` when none are left."""
    tag = await tx.execute(
        """DELETE FROM crawl_pages WHERE organization_id = $1 AND ctid = ANY (ARRAY(
               SELECT ctid FROM crawl_pages WHERE organization_id = $1 AND execution_id = ANY($2::uuid[]) LIMIT $3))""",
        organization_id,
        list(execution_ids),
        limit,
    )
    return _count(tag)


async def delete_streams(tx: Transaction, organization_id: UUID, ids: Sequence[UUID]) -> None:
    """Delete streams and crawls of which nothing is left."""
    await tx.execute(
        "DELETE FROM streams WHERE organization_id = $1 AND stream_id = ANY($2::uuid[])", organization_id, list(ids)
    )
    await tx.execute(
        "DELETE FROM crawl_runs WHERE organization_id = $1 AND execution_id = ANY($2::uuid[])",
        organization_id,
        list(ids),
    )


async def delta_range(tx: Transaction, organization_id: UUID, session_id: UUID) -> tuple[int, int]:
    """From which to which sequence a session's messages stand for deltas; (0, 0): for none."""
    row = await tx.fetchrow(
        """SELECT coalesce(min(first_delta), 0) AS first, coalesce(max(last_delta), 0) AS last FROM messages
           WHERE organization_id = $1 AND session_id = $2 AND last_delta > 0""",
        organization_id,
        session_id,
    )
    return (0, 0) if row is None else (row["first"], row["last"])


async def count_deltas(tx: Transaction, organization_id: UUID, session_id: UUID, kinds: Sequence[str]) -> int:
    """How many deltas a session's stream has."""
    sql = """SELECT count(*) FROM events
             WHERE organization_id = $1 AND stream_id = $2 AND sequence > 0 AND kind = ANY($3::text[])"""
    return int(await tx.fetchval(sql, organization_id, session_id, list(kinds)))


async def delete_requests(tx: Transaction, organization_id: UUID, limit: int) -> int:
    """Delete some request ids that have expired; returns how many: less than `limit` when none are left."""
    tag = await tx.execute(
        """DELETE FROM request_ids WHERE organization_id = $1 AND ctid = ANY (ARRAY(
               SELECT ctid FROM request_ids
               WHERE organization_id = $1 AND created_at < now() - interval '24 hours' LIMIT $2))""",
        organization_id,
        limit,
    )
    return _count(tag)


async def count_requests(tx: Transaction, organization_id: UUID) -> int:
    """How many there are of these."""
    sql = "SELECT count(*) FROM request_ids WHERE organization_id = $1 AND created_at < now() - interval '24 hours'"
    return int(await tx.fetchval(sql, organization_id))


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])
