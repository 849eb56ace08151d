"""The queries of retention."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.audit.model import Category
from stationmaster_server.db.transaction import Transaction

# What waits for its place stays until it has it, however old it is.
_DELETE = """
DELETE FROM audit_events e USING (
    SELECT tableoid, ctid FROM audit_events o
    WHERE o.category = $1 AND o.created_at < now() - $2::interval
      AND NOT EXISTS (SELECT FROM audit_queue q WHERE q.organization_id = o.organization_id AND q.event_id = o.id)
    LIMIT $3
) old WHERE e.tableoid = old.tableoid AND e.ctid = old.ctid
"""


async def delete(tx: Transaction, category: Category, older_than: timedelta, limit: int) -> int:
    """Delete a batch of the events of a category that are older; returns how many (a system transaction)."""
    tag = await tx.execute(_DELETE, category.value, older_than, limit)
    return int(tag.rpartition(" ")[2])


async def any_waiting(tx: Transaction, older_than: timedelta) -> bool:
    """Whether an event that old still waits for its place (a system transaction)."""
    sql = "SELECT EXISTS (SELECT FROM audit_queue WHERE created_at < now() - $1::interval)"
    return bool(await tx.fetchval(sql, older_than))
