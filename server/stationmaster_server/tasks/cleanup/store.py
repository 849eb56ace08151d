"""The queries of the clean-up. Every one is of one organization, and deletes a bounded number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stationmaster_server.db.transaction import Transaction


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
