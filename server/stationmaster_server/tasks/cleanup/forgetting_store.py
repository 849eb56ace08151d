"""The queries of forgetting executions. Every one deletes a bounded number of rows, of one organization."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.storage import store as report_store


class Old(NamedTuple):
    """An execution that may be forgotten, in the order in which they are looked at."""

    created_at: datetime
    id: UUID


class Left(NamedTuple):
    """What is left of an execution that is gone. `session_id`: whose workspace has files of it beside its own."""

    id: UUID
    session_id: UUID | None


class Gone(NamedTuple):
    """An execution that is gone, whose it was, and how many reports went with it."""

    left: Left
    user_id: UUID
    reports: int


BEGINNING = Old(datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))

# The rule. Kept are: what is not over or not followed up, what a repeated submission may be answered with, what a
# report is being made of, and the newest of each task, by which dependencies on it are decided.
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


async def organizations(tx: Transaction, keep: timedelta) -> tuple[datetime, list[UUID]]:
    """The time so long ago, and the organizations that have executions from before, or what forgotten ones left."""
    before: datetime = await tx.fetchval("SELECT now() - $1::interval", keep)
    rows = await tx.fetch(
        """SELECT o.organization_id FROM organizations o
           WHERE EXISTS (SELECT FROM executions e WHERE e.organization_id = o.organization_id AND e.created_at < $1)
              OR EXISTS (SELECT FROM forgotten_executions f WHERE f.organization_id = o.organization_id)
           ORDER BY o.organization_id""",
        before,
    )
    return before, [row["organization_id"] for row in rows]


async def old(tx: Transaction, organization_id: UUID, before: datetime, after: Old, limit: int) -> list[Old]:
    """Executions that ended before a time and that nobody needs, the oldest first, after one of them."""
    rows = await tx.fetch(
        f"""SELECT e.created_at, e.id FROM {_OLD} AND (e.created_at, e.id) > ($3, $4)
            ORDER BY e.created_at, e.id LIMIT $5""",
        organization_id,
        before,
        *after,
        limit,
    )
    return [Old(*row) for row in rows]


async def count(tx: Transaction, organization_id: UUID, before: datetime) -> int:
    """How many there are of these."""
    return int(await tx.fetchval(f"SELECT count(*) FROM {_OLD}", organization_id, before))


async def delete(tx: Transaction, organization_id: UUID, before: datetime, ids: Sequence[UUID]) -> list[Gone]:
    """Delete those of the executions that are still over, with their work and reports.

    What else they left is noted, and claimed. Those that somebody else is at are left to them.
    """
    locked = await tx.fetch(
        f"""SELECT i.item_id FROM work_items i WHERE i.organization_id = $1 AND i.item_id = ANY($3::uuid[])
            AND {_ENDED} ORDER BY i.item_id FOR UPDATE SKIP LOCKED""",
        organization_id,
        before,
        list(ids),
    )
    rows = await tx.fetch(
        """WITH gone AS (
               DELETE FROM executions e WHERE e.organization_id = $1 AND e.id = ANY($2::uuid[])
               AND (e.id = ANY($3::uuid[])
                    OR NOT EXISTS (SELECT FROM work_items i WHERE i.organization_id = $1 AND i.item_id = e.id))
               RETURNING e.id, e.user_id,
                         CASE e.kind WHEN 'export' THEN (e.checkpoint ->> 'writes_into')::uuid END AS session_id
           ), noted AS (
               INSERT INTO forgotten_executions (organization_id, execution_id, session_id)
               SELECT $1, id, session_id FROM gone
               ON CONFLICT (organization_id, execution_id)
               DO UPDATE SET session_id = excluded.session_id, claimed_at = now()
           )
           SELECT id, user_id, session_id FROM gone""",
        organization_id,
        list(ids),
        [row["item_id"] for row in locked],
    )
    gone = [row["id"] for row in rows]
    await tx.execute(
        """DELETE FROM work_items WHERE organization_id = $1 AND (item_id = ANY($2::uuid[])
               OR state = 'DEAD' AND kind = 'task_report' AND subject_id = ANY($2::uuid[]))""",
        organization_id,
        gone,
    )
    reports = Counter(report.execution_id for report in await report_store.delete_of(tx, organization_id, gone))
    return [Gone(Left(row["id"], row["session_id"]), row["user_id"], reports[row["id"]]) for row in rows]


async def claim(tx: Transaction, organization_id: UUID, since: timedelta, limit: int) -> list[Left]:
    """Forgotten executions that nobody has dealt with for so long: from now on the caller does."""
    rows = await tx.fetch(
        """UPDATE forgotten_executions SET claimed_at = now()
           WHERE organization_id = $1 AND execution_id IN (
               SELECT execution_id FROM forgotten_executions
               WHERE organization_id = $1 AND claimed_at < now() - $2::interval
               ORDER BY execution_id LIMIT $3 FOR UPDATE SKIP LOCKED)
           RETURNING execution_id, session_id""",
        organization_id,
        since,
        limit,
    )
    return [Left(*row) for row in rows]


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
    return int(tag.rpartition(" ")[2])


async def delete_pages(tx: Transaction, organization_id: UUID, execution_ids: Sequence[UUID], limit: int) -> int:
    """Delete some pages of crawls; returns how many: less than `limit` when none are left."""
    tag = await tx.execute(
        """DELETE FROM crawl_pages WHERE organization_id = $1 AND ctid = ANY (ARRAY(
               SELECT ctid FROM crawl_pages WHERE organization_id = $1 AND execution_id = ANY($2::uuid[]) LIMIT $3))""",
        organization_id,
        list(execution_ids),
        limit,
    )
    return int(tag.rpartition(" ")[2])


async def finish(tx: Transaction, organization_id: UUID, ids: Sequence[UUID]) -> None:
    """Nothing is left of executions but their streams' rows, crawls and notes, which go with this."""
    for table, column in (
        ("streams", "stream_id"),
        ("crawl_runs", "execution_id"),
        ("forgotten_executions", "execution_id"),
    ):
        sql = f"DELETE FROM {table} WHERE organization_id = $1 AND {column} = ANY($2::uuid[])"
        await tx.execute(sql, organization_id, list(ids))
