"""The queries of proofs and exports: events as they are in the tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from stationmaster_server.audit.model import Leaf
from stationmaster_server.audit.tree_store import BODY
from stationmaster_server.db.transaction import Transaction

_LEAF = f"""
SELECT p.sequence, p.event_id, p.created_at, p.commitment, e.salt, CASE WHEN e.id IS NOT NULL THEN {BODY} END AS body
FROM audit_positions p LEFT JOIN audit_events e
  ON e.organization_id = p.organization_id AND e.created_at = p.created_at AND e.id = p.event_id
"""


async def leaf(tx: Transaction, organization_id: UUID, event_id: UUID) -> Leaf | None:
    """The leaf of an event that has its place."""
    row = await tx.fetchrow(f"{_LEAF} WHERE p.organization_id = $1 AND p.event_id = $2", organization_id, event_id)
    return None if row is None else Leaf(*row)


async def leaves(tx: Transaction, organization_id: UUID, after: int, last: int) -> list[Leaf]:
    """The leaves above `after` up to `last`, in order."""
    sql = f"{_LEAF} WHERE p.organization_id = $1 AND p.sequence > $2 AND p.sequence <= $3 ORDER BY p.sequence"
    return [Leaf(*row) for row in await tx.fetch(sql, organization_id, after, last)]


async def bodies(
    tx: Transaction, organization_id: UUID, after: int, last: int, where_sql: str, args: Sequence[Any]
) -> list[tuple[int, str]]:
    """Sequence and body of the events above `after` up to `last` that match; placeholders start at 4."""
    sql = f"""
    SELECT p.sequence, {BODY} AS body
    FROM audit_positions p JOIN audit_events e
      ON e.organization_id = p.organization_id AND e.created_at = p.created_at AND e.id = p.event_id
    WHERE p.organization_id = $1 AND p.sequence > $2 AND p.sequence <= $3 AND {where_sql} ORDER BY p.sequence
    """
    return [(row[0], row[1]) for row in await tx.fetch(sql, organization_id, after, last, *args)]
