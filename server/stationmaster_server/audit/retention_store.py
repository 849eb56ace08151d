"""The queries of retention."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from stationmaster_server.audit.model import Category
from stationmaster_server.db.transaction import Transaction

# What waits for its place stays until it has it, however old it is.
_DELETE = """
WITH gone AS (
DELETE FROM audit_events e USING (
    SELECT tableoid, ctid FROM audit_events o
    WHERE o.category = $1 AND o.created_at < now() - $2::interval
      AND NOT EXISTS (SELECT FROM audit_queue q WHERE q.organization_id = o.organization_id AND q.event_id = o.id)
    LIMIT $3
) old WHERE e.tableoid = old.tableoid AND e.ctid = old.ctid
RETURNING e.organization_id, e.action
)
SELECT organization_id, count(*) AS events, bool_or(action <> $4) AS tell FROM gone GROUP BY organization_id
"""
_OF_WHOLE_MONTHS = """
SELECT organization_id, count(*) AS events, bool_or(action <> $2) AS tell FROM audit_events
WHERE created_at < date_trunc('month', (now() - $1::interval) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
GROUP BY organization_id
"""


class Forgotten(NamedTuple):
    """How many events of an organization; `tell`: whether any of them told of something else than of this."""

    organization_id: UUID
    events: int
    tell: bool


async def delete(
    tx: Transaction, category: Category, older_than: timedelta, limit: int, *, telling: str
) -> list[Forgotten]:
    """Delete a batch of the events of a category that are older (a system transaction).

    `telling` is the action by which that is told.
    """
    rows = await tx.fetch(_DELETE, category.value, older_than, limit, telling)
    return [Forgotten(*row) for row in rows]


async def of_whole_months(tx: Transaction, older_than: timedelta, *, telling: str) -> list[Forgotten]:
    """The events of the months in which everything is older (a system transaction)."""
    return [Forgotten(*row) for row in await tx.fetch(_OF_WHOLE_MONTHS, older_than, telling)]


async def any_waiting(tx: Transaction, older_than: timedelta) -> bool:
    """Whether an event that old still waits for its place (a system transaction)."""
    sql = "SELECT EXISTS (SELECT FROM audit_queue WHERE created_at < now() - $1::interval)"
    return bool(await tx.fetchval(sql, older_than))
