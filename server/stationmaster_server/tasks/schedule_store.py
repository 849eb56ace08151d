"""The queries of schedules: what is due, of all organizations, and until when each is settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks import store
from stationmaster_server.tasks.model import Task


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task whose schedule fires `at`, which is now; locked to the end of the transaction."""

    organization_id: UUID
    task: Task
    at: datetime


async def clock(tx: Transaction) -> datetime:
    """The database's clock."""
    now: datetime = await tx.fetchval("SELECT now()")
    return now


async def claim(tx: Transaction, now: datetime) -> Claimed | None:
    """The task that has been due longest and that nobody else deals with."""
    row = await tx.fetchrow(
        """SELECT organization_id, task_id FROM tasks WHERE next_fire_at <= $1 AND state = 'ACTIVE'
           ORDER BY next_fire_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED""",
        now,
    )
    if row is None:
        return None
    return Claimed(row["organization_id"], await store.get(tx, row["organization_id"], row["task_id"]), now)


async def settle(
    tx: Transaction,
    organization_id: UUID,
    task_id: str,
    settled_until: datetime,
    next_fire_at: datetime | None,
    skipped: Mapping[str, int],
    *,
    fired: int = 0,
    last_fire_at: datetime | None = None,
) -> None:
    """Write until when every due time is fired or counted. `skipped`: all counts by reason; `fired`: how many more."""
    await tx.execute(
        """UPDATE tasks SET settled_until = $3, next_fire_at = $4, skipped = $5, fired = fired + $6,
                            last_fire_at = COALESCE($7, last_fire_at)
           WHERE organization_id = $1 AND task_id = $2""",
        organization_id,
        task_id,
        settled_until,
        next_fire_at,
        dict(skipped),
        fired,
        last_fire_at,
    )


async def put_off(tx: Transaction, claimed: Claimed, pause: timedelta) -> None:
    """Look at a schedule that is due again after a pause; what is due stays as it is."""
    await tx.execute(
        """UPDATE tasks SET next_fire_at = $3 + $4::interval
           WHERE organization_id = $1 AND task_id = $2 AND next_fire_at <= $3""",
        claimed.organization_id,
        claimed.task.task_id,
        claimed.at,
        pause,
    )


# By the index of ends that are still to be followed up, of which there are few.
NEW_FAILURE = """
SELECT EXISTS (
    SELECT FROM work_items i JOIN executions e ON e.organization_id = i.organization_id AND e.id = i.item_id
    WHERE i.follow_up AND NOT i.followed_up AND i.state IN ('SUCCEEDED', 'CANCELLED', 'DEAD') AND i.state = 'DEAD'
      AND i.organization_id = $1 AND i.subject_id = $2 AND e.trigger = 'SCHEDULE'
)
"""


async def has_new_failure(tx: Transaction, organization_id: UUID, task_uid: UUID) -> bool:
    """Whether an execution that the schedule began has failed, and what follows from that is still to be done."""
    return bool(
        await tx.fetchval(
            NEW_FAILURE,
            organization_id,
            task_uid,
        )
    )
