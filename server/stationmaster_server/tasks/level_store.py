"""The queries of levels. A task without a row has the level 0. Only who holds the lock of the graph writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from stationmaster_server.db.transaction import Transaction


async def get(tx: Transaction, organization_id: UUID, task_ids: Sequence[str]) -> dict[str, int]:
    """The levels of tasks that have one."""
    rows = await tx.fetch(
        "SELECT task_id, level FROM task_levels WHERE organization_id = $1 AND task_id = ANY($2::text[])",
        organization_id,
        list(task_ids),
    )
    return {row[0]: row[1] for row in rows}


async def dependents(tx: Transaction, organization_id: UUID, task_ids: Sequence[str]) -> list[tuple[str, str, int]]:
    """What depends on tasks: (the task, what depends on it, that one's level)."""
    rows = await tx.fetch(
        """SELECT d.depends_on, d.task_id, coalesce(l.level, 0) FROM task_dependencies d
           LEFT JOIN task_levels l ON l.organization_id = d.organization_id AND l.task_id = d.task_id
           WHERE d.organization_id = $1 AND d.depends_on = ANY($2::text[])""",
        organization_id,
        list(task_ids),
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def put(tx: Transaction, organization_id: UUID, levels: Mapping[str, int]) -> None:
    """Write the levels of tasks."""
    await tx.execute(
        """INSERT INTO task_levels (organization_id, task_id, level)
           SELECT $1, * FROM unnest($2::text[], $3::smallint[])
           ON CONFLICT (organization_id, task_id) DO UPDATE SET level = excluded.level""",
        organization_id,
        list(levels),
        list(levels.values()),
    )


async def lower(tx: Transaction, organization_id: UUID, task_ids: Sequence[str]) -> list[str]:
    """Give tasks the level that their dependencies make; returns those whose level it changed."""
    rows = await tx.fetch(
        """UPDATE task_levels t SET level = n.level
           FROM unnest($2::text[]) AS wanted(task_id),
           LATERAL (SELECT coalesce(max(coalesce(l.level, 0) + 1), 0)::smallint AS level
                    FROM task_dependencies d
                    LEFT JOIN task_levels l ON l.organization_id = d.organization_id AND l.task_id = d.depends_on
                    WHERE d.organization_id = $1 AND d.task_id = wanted.task_id) n
           WHERE t.organization_id = $1 AND t.task_id = wanted.task_id AND t.level <> n.level
           RETURNING t.task_id""",
        organization_id,
        list(task_ids),
    )
    return [row[0] for row in rows]


async def delete(tx: Transaction, organization_id: UUID, task_id: str) -> None:
    """Forget the level of a task that is deleted."""
    await tx.execute("DELETE FROM task_levels WHERE organization_id = $1 AND task_id = $2", organization_id, task_id)
