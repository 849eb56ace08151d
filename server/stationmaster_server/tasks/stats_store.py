"""How the executions of an organization stand, counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.execution_row_store import STATE
from stationmaster_server.tasks.model import ExecutionState, KindStats

# Each part by an index of its own: however many executions ended before the last hour, they are not read.
_STATS = f"""
SELECT e.kind, {STATE} AS state, count(*) AS count, min(i.run_at) AS oldest,
       count(*) FILTER (WHERE i.finished_at > now() - interval '1 hour') AS lately
FROM (
    SELECT organization_id, item_id, state, run_at, finished_at FROM work_items
    WHERE organization_id = $1 AND follow_up AND state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED')
    UNION ALL
    SELECT organization_id, item_id, state, run_at, finished_at FROM work_items
    WHERE organization_id = $1 AND state = 'DEAD'
    UNION ALL
    SELECT organization_id, item_id, state, run_at, finished_at FROM work_items
    WHERE organization_id = $1 AND follow_up AND state IN ('SUCCEEDED', 'CANCELLED')
      AND finished_at > now() - interval '1 hour'
) i JOIN executions e ON e.organization_id = i.organization_id AND e.id = i.item_id
GROUP BY 1, 2
"""


async def stats(tx: Transaction, organization_id: UUID, known: Sequence[str] = ()) -> list[KindStats]:
    """How many executions of each kind stand how: of the kinds known, and of others that there are executions of."""
    rows = await tx.fetch(_STATS, organization_id)
    kinds: dict[str, dict[str, Any]] = {kind: {} for kind in known}
    for row in rows:
        kinds.setdefault(row["kind"], {})[row["state"]] = row
    return [_stats(kind, states) for kind, states in sorted(kinds.items())]


def _stats(kind: str, states: dict[str, Any]) -> KindStats:
    def of(state: ExecutionState, column: str) -> Any:
        return states[state][column] if state in states else 0

    return KindStats(
        kind=kind,
        blocked=of(ExecutionState.BLOCKED, "count"),
        queued=of(ExecutionState.QUEUED, "count"),
        running=of(ExecutionState.RUNNING, "count"),
        failed=of(ExecutionState.FAILED, "count"),
        oldest_queued_at=of(ExecutionState.QUEUED, "oldest") or None,
        succeeded_lately=of(ExecutionState.SUCCEEDED, "lately"),
        failed_lately=of(ExecutionState.FAILED, "lately"),
        cancelled_lately=of(ExecutionState.CANCELLED, "lately"),
    )
