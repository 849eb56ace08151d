"""Forgetting executions that ended long ago, with their work items and streams."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.db.transaction import Transaction

BATCH = 200

# One whose repeated submission may still be answered with it stays, and so does one whose end is still dealt with.
_FORGET = """
WITH old AS (
    SELECT e.organization_id, e.id FROM executions e
    JOIN work_items i ON i.organization_id = e.organization_id AND i.item_id = e.id
    WHERE i.state IN ('SUCCEEDED', 'CANCELLED', 'DEAD') AND i.followed_up AND i.finished_at < now() - $1::interval
      AND (i.idempotency_key IS NULL OR i.idempotency_expires_at < now())
    LIMIT $2 FOR UPDATE OF i SKIP LOCKED
), item AS (
    DELETE FROM work_items i USING old WHERE i.organization_id = old.organization_id AND i.item_id = old.id
), event AS (
    DELETE FROM events v USING old WHERE v.organization_id = old.organization_id AND v.stream_id = old.id
), stream AS (
    DELETE FROM streams s USING old WHERE s.organization_id = old.organization_id AND s.stream_id = old.id
)
DELETE FROM executions e USING old WHERE e.organization_id = old.organization_id AND e.id = old.id
"""


async def forget(tx: Transaction, older_than: timedelta) -> int:
    """Delete a batch of the executions that ended longer ago; returns how many: `BATCH` when there may be more."""
    tag = await tx.execute(_FORGET, older_than, BATCH)
    return int(tag.rpartition(" ")[2])
