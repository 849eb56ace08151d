"""The queries of statistics."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from stationmaster_server.audit.model import AuditStats, Counted
from stationmaster_server.db.transaction import Transaction

_MOST = 20

# One pass over the span; of actions and actors only the most frequent.
_COUNT = """
SELECT grouping(category) = 0 AS is_category, grouping(outcome) = 0 AS is_outcome, grouping(action) = 0 AS is_action,
       grouping(actor) = 0 AS is_actor, coalesce(category, outcome, action, actor) AS value, count(*) AS count
FROM audit_events WHERE organization_id = $1 AND created_at >= $2 AND created_at < $3
GROUP BY GROUPING SETS ((category), (outcome), (action), (actor)) ORDER BY count(*) DESC, value
"""
_STATE = """
SELECT coalesce((SELECT last_sequence FROM audit_heads WHERE organization_id = $1), 0),
       coalesce((SELECT size FROM audit_checkpoints WHERE organization_id = $1), 0),
       (SELECT count(*) FROM audit_queue WHERE organization_id = $1),
       (SELECT min(created_at) FROM audit_events WHERE organization_id = $1)
"""


async def stats(tx: Transaction, organization_id: UUID, start: datetime, end: datetime) -> AuditStats:
    """The events of a span, counted, and how the tree stands."""
    rows = await tx.fetch(_COUNT, organization_id, start, end)

    def counted(kind: str) -> list[Counted]:
        return [Counted(row["value"], row["count"]) for row in rows if row[f"is_{kind}"]]

    outcomes = counted("outcome")
    (state,) = await tx.fetch(_STATE, organization_id)
    return AuditStats(
        sum(each.count for each in outcomes),
        counted("category"),
        outcomes,
        counted("action")[:_MOST],
        counted("actor")[:_MOST],
        *state,
    )
