"""The queries of the graph of dependencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists, NotFound
from stationmaster_server.tasks import store
from stationmaster_server.tasks.model import Dependency, DependencyState, ExecutionState, FailurePolicy, Task, task_name


@dataclass(frozen=True, slots=True)
class Edge:
    """`task_id` waits for `depends_on`, whose uid is `uid`. `ended_at`, `ended_as`: of that one's newest execution."""

    task_id: str
    depends_on: str
    on_failure: FailurePolicy
    state: DependencyState
    created_at: datetime
    ended_at: datetime | None
    ended_as: ExecutionState | None
    uid: UUID

    def at(self, depth: int) -> Dependency:
        """The dependency as callers see it."""
        return Dependency(self.task_id, self.depends_on, self.on_failure, depth, self.state, self.created_at)


# What the blocked execution of a row `e` waits for, as `graph.why_not` tells it.
WAITS_FOR = """(SELECT string_agg('waits for tasks/' || d.depends_on || CASE newest.state
        WHEN 'DEAD' THEN ', which ended as FAILED' WHEN 'CANCELLED' THEN ', which ended as CANCELLED' ELSE '' END,
        '; ' ORDER BY d.depends_on)
    FROM task_dependencies d JOIN tasks t ON t.organization_id = d.organization_id AND t.task_id = d.depends_on
    LEFT JOIN LATERAL (
        SELECT w.state FROM executions x JOIN work_items w ON w.organization_id = x.organization_id AND w.item_id = x.id
        WHERE x.organization_id = d.organization_id AND x.task_uid = t.uid ORDER BY x.created_at DESC, x.id DESC LIMIT 1
    ) newest ON true
    WHERE e.blocked AND d.organization_id = e.organization_id AND d.task_id = e.task_id
      AND newest.state IS DISTINCT FROM 'SUCCEEDED'
      AND NOT (d.on_failure = 'RUN_ANYWAY' AND COALESCE(newest.state, '') IN ('DEAD', 'CANCELLED')))"""
# How a dependency stands is decided by the newest execution of the task depended on.
_STANDING = """
SELECT d.task_id, d.depends_on, d.on_failure, d.created_at, t.uid, newest.state, newest.finished_at
FROM {edges} d
JOIN tasks t ON t.organization_id = d.organization_id AND t.task_id = d.depends_on
LEFT JOIN LATERAL (
    SELECT i.state, i.finished_at
    FROM executions e JOIN work_items i ON i.organization_id = e.organization_id AND i.item_id = e.id
    WHERE e.organization_id = d.organization_id AND e.task_uid = t.uid
    ORDER BY e.created_at DESC, e.id DESC LIMIT 1
) newest ON true
"""
_EDGES = (
    _STANDING.format(edges="task_dependencies")
    + """WHERE d.organization_id = $1 AND d.{column} = ANY($2::text[])
ORDER BY d.task_id, d.depends_on
"""
)
_INSERT = f"""
WITH made AS (
    INSERT INTO task_dependencies (organization_id, task_id, depends_on, on_failure)
    SELECT organization_id, $2, task_id, $4 FROM tasks WHERE organization_id = $1 AND task_id = $3
    ON CONFLICT DO NOTHING RETURNING organization_id, task_id, depends_on, on_failure, created_at
)
{_STANDING.format(edges="made")}
"""
_LOCK = "pg_advisory_xact_lock(hashtextextended('task_dependencies' || $1::uuid::text, 0))"


async def lock_graph(tx: Transaction, organization_id: UUID) -> None:
    """Nobody else changes the organization's graph until this transaction ends: two edges could close a cycle."""
    await tx.execute(f"SELECT {_LOCK}", organization_id)


async def lock_graph_and_share(tx: Transaction, organization_id: UUID, task_id: str) -> Task:
    """As `lock_graph`, then `store.share`, in one trip. Raises NotFound."""
    return await store.share_after(tx, organization_id, task_id, _LOCK)


async def hold_graph(tx: Transaction, organization_id: UUID) -> None:
    """Nobody adds an edge until this transaction ends."""
    await tx.execute(
        "SELECT pg_advisory_xact_lock_shared(hashtextextended('task_dependencies' || $1::uuid::text, 0))",
        organization_id,
    )


async def insert(
    tx: Transaction, organization_id: UUID, task_id: str, depends_on: str, on_failure: FailurePolicy
) -> None:
    """The row alone. AlreadyExists when there is one."""
    added = await tx.fetchval(
        """INSERT INTO task_dependencies (organization_id, task_id, depends_on, on_failure) VALUES ($1, $2, $3, $4)
           ON CONFLICT DO NOTHING RETURNING true""",
        organization_id,
        task_id,
        depends_on,
        on_failure,
    )
    if not added:
        raise AlreadyExists("TaskDependency", f"{task_name(task_id)} on {task_name(depends_on)}")


async def add(tx: Transaction, organization_id: UUID, task_id: str, depends_on: str, on_failure: FailurePolicy) -> Edge:
    """A new edge, as it stands. Raises AlreadyExists, NotFound: there is no such task to depend on."""
    row = await tx.fetchrow(_INSERT, organization_id, task_id, depends_on, on_failure)
    if row is None:
        await store.owners(tx, organization_id, [depends_on])
        raise AlreadyExists("TaskDependency", f"{task_name(task_id)} on {task_name(depends_on)}")
    return _edge(row)


async def delete(tx: Transaction, organization_id: UUID, task_id: str, depends_on: str) -> None:
    """Take an edge away. Raises NotFound."""
    deleted = await tx.fetchval(
        """DELETE FROM task_dependencies WHERE organization_id = $1 AND task_id = $2 AND depends_on = $3
           RETURNING true""",
        organization_id,
        task_id,
        depends_on,
    )
    if not deleted:
        raise NotFound("TaskDependency", f"{task_name(task_id)} on {task_name(depends_on)}")


async def get(tx: Transaction, organization_id: UUID, task_id: str, depends_on: str) -> Edge | None:
    """One edge."""
    sql = _EDGES.format(column="task_id").replace("ORDER BY d.task_id", "AND d.depends_on = $3 ORDER BY d.task_id")
    rows = await tx.fetch(sql, organization_id, [task_id], depends_on)
    return _edge(rows[0]) if rows else None


async def upstream(tx: Transaction, organization_id: UUID, task_ids: Sequence[str]) -> list[Edge]:
    """What the tasks depend on."""
    rows = await tx.fetch(_EDGES.format(column="task_id"), organization_id, list(task_ids))
    return [_edge(row) for row in rows]


async def downstream(tx: Transaction, organization_id: UUID, task_ids: Sequence[str]) -> list[Edge]:
    """What depends on the tasks."""
    rows = await tx.fetch(_EDGES.format(column="depends_on"), organization_id, list(task_ids))
    return [_edge(row) for row in rows]


async def neighbours(
    tx: Transaction, organization_id: UUID, task_ids: Sequence[str], *, up: bool
) -> list[tuple[str, str]]:
    """The edges that leave the tasks in one direction, as (from, to): the graph alone."""
    near, far = ("task_id", "depends_on") if up else ("depends_on", "task_id")
    rows = await tx.fetch(
        f"SELECT {near}, {far} FROM task_dependencies WHERE organization_id = $1 AND {near} = ANY($2::text[])",
        organization_id,
        list(task_ids),
    )
    return [(row[0], row[1]) for row in rows]


async def organizations(tx: Transaction) -> list[UUID]:
    """Those that have dependencies (a system transaction)."""
    return [row[0] for row in await tx.fetch("SELECT DISTINCT organization_id FROM task_dependencies")]


async def edges(tx: Transaction, organization_id: UUID) -> list[tuple[str, str]]:
    """The whole graph of an organization, as (task, what it depends on)."""
    sql = "SELECT task_id, depends_on FROM task_dependencies WHERE organization_id = $1"
    return [(row[0], row[1]) for row in await tx.fetch(sql, organization_id)]


def _edge(row: Any) -> Edge:
    ended_as: ExecutionState | None
    match row["state"]:
        case "SUCCEEDED":
            state, ended_as = DependencyState.SATISFIED, ExecutionState.SUCCEEDED
        case "CANCELLED":
            state, ended_as = DependencyState.FAILED, ExecutionState.CANCELLED
        case "DEAD":
            state, ended_as = DependencyState.FAILED, ExecutionState.FAILED
        case _:
            state, ended_as = DependencyState.PENDING, None
    ended_at = None if state is DependencyState.PENDING else row["finished_at"]
    on_failure = FailurePolicy(row["on_failure"])
    return Edge(row["task_id"], row["depends_on"], on_failure, state, row["created_at"], ended_at, ended_as, row["uid"])
