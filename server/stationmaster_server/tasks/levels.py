"""The level of each task: how long the longest chain is that it depends on. An edge that goes up closes no cycle.

Kept exact with each edge, under the lock of the graph. So an edge costs what it changes: in a graph of any size most
edges go from a level to one above, and nothing else is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks import level_store
from stationmaster_server.tasks.graph import cycle_refused, find_cycle, too_deep
from stationmaster_server.tasks.model import MAX_DEPTH


async def admit(tx: Transaction, organization_id: UUID, task_id: str, depends_on: str) -> None:
    """Raise the levels as a new edge wants it.

    Raises FailedPrecondition(DEPENDENCY_CYCLE, DEPENDENCY_TOO_DEEP).
    """
    levels = await level_store.get(tx, organization_id, [task_id, depends_on])
    wanted = levels.get(depends_on, 0) + 1
    if task_id != depends_on and wanted <= levels.get(task_id, 0):
        return
    raised, rising = {task_id: wanted}, {task_id}
    while rising:
        above: set[str] = set()
        for near, far, level in await level_store.dependents(tx, organization_id, sorted(rising)):
            # A chain back to what is depended on has rising levels all along.
            if far == depends_on or raised[near] >= MAX_DEPTH:
                raise await _refusal(tx, organization_id, task_id, depends_on)
            if raised[near] + 1 > max(level, raised.get(far, 0)):
                raised[far] = raised[near] + 1
                above.add(far)
        rising = above
    if task_id == depends_on or wanted > MAX_DEPTH:
        raise await _refusal(tx, organization_id, task_id, depends_on)
    await level_store.put(tx, organization_id, raised)


async def settle(tx: Transaction, organization_id: UUID, task_id: str) -> None:
    """Lower the levels after an edge of a task was taken away."""
    looked_at: Sequence[str] = [task_id]
    while looked_at:
        lowered = await level_store.lower(tx, organization_id, looked_at)
        looked_at = sorted({far for _, far, _ in await level_store.dependents(tx, organization_id, lowered)})


async def _refusal(tx: Transaction, organization_id: UUID, task_id: str, depends_on: str) -> Exception:
    """Which of the two it is, with the way; the walk itself raises when the chain is too long."""
    cycle = await find_cycle(tx, organization_id, task_id, depends_on)
    return cycle_refused(cycle) if cycle else too_deep(task_id, f"there are more than {MAX_DEPTH} steps")
