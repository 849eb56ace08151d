"""The queries of statistics."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from stationmaster_server.audit.model import AuditStats, Counted
from stationmaster_server.db.transaction import Transaction

_MOST = 20

# One pass over the span; of each kind only the most frequent: actions may be as many as events.
_COUNT = """
SELECT kind, value, count FROM (
    SELECT kind, value, count, row_number() OVER (PARTITION BY kind ORDER BY count DESC, value) AS place FROM (
        SELECT CASE 0 WHEN grouping(category) THEN 'category' WHEN grouping(outcome) THEN 'outcome'
                      WHEN grouping(action) THEN 'action' ELSE 'actor' END AS kind,
               coalesce(category, outcome, action, actor) AS value, count(*) AS count
        FROM audit_events WHERE organization_id = $1 AND created_at >= $2 AND created_at < $3
        GROUP BY GROUPING SETS ((category), (outcome), (action), (actor))
    ) counted
) placed WHERE place <= $4 ORDER BY count DESC, value
"""
_STATE = """
SELECT coalesce((SELECT last_sequence FROM audit_heads WHERE organization_id = $1), 0),
       coalesce((SELECT size FROM audit_checkpoints WHERE organization_id = $1), 0),
       (SELECT count(*) FROM audit_queue WHERE organization_id = $1),
       (SELECT min(created_at) FROM audit_events WHERE organization_id = $1)
"""


async def stats(tx: Transaction, organization_id: UUID, start: datetime, end: datetime) -> AuditStats:
    """The events of a span, counted, and how the tree stands."""
    rows = await tx.fetch(_COUNT, organization_id, start, end, _MOST)

    def counted(kind: str) -> list[Counted]:
        return [Counted(row["value"], row["count"]) for row in rows if row["kind"] == kind]

    outcomes = counted("outcome")
    (state,) = await tx.fetch(_STATE, organization_id)
    return AuditStats(
        sum(each.count for each in outcomes),
        counted("category"),
        outcomes,
        counted("action"),
        counted("actor"),
        *state,
    )
