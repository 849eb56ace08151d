"""Walks through the graph of dependencies: cycles, depths, and whether a task may start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason
from stationmaster_server.tasks import dependency_store
from stationmaster_server.tasks.dependency_store import Edge
from stationmaster_server.tasks.model import MAX_DEPTH, DependencyState, FailurePolicy, task_name

TIME_LIMIT = timedelta(seconds=10)


class Verdict(Enum):
    """What becomes of an execution whose task depends on others."""

    RUN = auto()
    WAIT = auto()
    SKIP = auto()


def verdict(edges: Sequence[Edge]) -> Verdict:
    """By the dependencies of its task, as they stand."""
    failed = [edge for edge in edges if edge.state is DependencyState.FAILED]
    if any(edge.on_failure is FailurePolicy.SKIP for edge in failed):
        return Verdict.SKIP
    if all(_fulfilled(edge) for edge in edges):
        return Verdict.RUN
    return Verdict.WAIT


def starts(edges: Sequence[Edge], since: datetime | None) -> bool:
    """Whether the task is to be started: all it depends on has ended as it should since it was last begun."""
    return bool(edges) and all(
        _fulfilled(edge) and edge.ended_at is not None and (since is None or edge.ended_at > since) for edge in edges
    )


def why_waiting(edges: Sequence[Edge]) -> str:
    """What an execution waits for: `waits for tasks/a`, and how that ended; empty when for nothing."""
    waits = ((task_name(edge.depends_on), edge.ended_as) for edge in edges if not _fulfilled(edge))
    return "; ".join(
        f"waits for {name}{f', which ended as {ended_as}' if ended_as else ''}" for name, ended_as in waits
    )


def why_skipped(edges: Sequence[Edge]) -> str:
    """What forbids an execution: `tasks/a ended as FAILED`."""
    failed = [edge for edge in edges if edge.state is DependencyState.FAILED and edge.on_failure is FailurePolicy.SKIP]
    return "; ".join(f"{task_name(edge.depends_on)} ended as {edge.ended_as}" for edge in failed)


def _fulfilled(edge: Edge) -> bool:
    if edge.state is DependencyState.FAILED:
        return edge.on_failure is FailurePolicy.RUN_ANYWAY
    return edge.state is DependencyState.SATISFIED


@dataclass(frozen=True, slots=True)
class Walk:
    """What can be reached from a task: its longest way, and whence each task was first reached."""

    depth: int
    came_from: dict[str, str]

    def path_to(self, task_id: str) -> list[str]:
        """The way from the start to a task that was reached."""
        path = [task_id]
        while path[-1] in self.came_from:
            path.append(self.came_from[path[-1]])
        return path[::-1]


async def walk(tx: Transaction, organization_id: UUID, start: str, *, up: bool) -> Walk:
    """Everything in one direction, level by level, so that the last level is the longest way.

    Raises FailedPrecondition(DEPENDENCY_TOO_DEEP) past 50 levels or 10 seconds.
    """
    came_from: dict[str, str] = {}
    level, depth = {start}, 0
    try:
        async with asyncio.timeout(TIME_LIMIT.total_seconds()):
            while True:
                edges = await dependency_store.neighbours(tx, organization_id, sorted(level), up=up)
                if not edges:
                    return Walk(depth, came_from)
                for near, far in edges:
                    if far != start:
                        came_from.setdefault(far, near)
                level, depth = {far for _, far in edges}, depth + 1
                if depth > MAX_DEPTH:
                    raise too_deep(start, f"there are more than {MAX_DEPTH} steps")
    except TimeoutError:
        raise too_deep(start, f"they could not be followed within {TIME_LIMIT.total_seconds():g} s") from None


async def find_cycle(tx: Transaction, organization_id: UUID, task_id: str, depends_on: str) -> list[str]:
    """The cycle that an edge would close, from the task back to it; empty when it closes none.

    Raises FailedPrecondition(DEPENDENCY_TOO_DEEP) when the longest way through the edge would be.
    """
    if task_id == depends_on:
        return [task_id, task_id]
    above = await walk(tx, organization_id, depends_on, up=True)
    if task_id in above.came_from:
        return [task_id, *above.path_to(task_id)]
    below = await walk(tx, organization_id, task_id, up=False)
    if above.depth + 1 + below.depth > MAX_DEPTH:
        raise too_deep(task_id, f"the longest way would have {above.depth + 1 + below.depth} steps")
    return []


def cycle_refused(path: Sequence[str]) -> FailedPrecondition:
    """The refusal of an edge, with the cycle that it would close."""
    names = [task_name(task_id) for task_id in path]
    error = FailedPrecondition(
        Reason.DEPENDENCY_CYCLE,
        f"{names[0]} cannot depend on {names[1]}, for that depends on it: {' -> '.join(names)}",
        PreconditionViolation("TASK_DEPENDENCIES", names[0], "remove a dependency of the cycle first"),
    )
    error.metadata["path"] = ",".join(names)
    return error


def too_deep(task_id: str, why: str) -> FailedPrecondition:
    """The refusal of dependencies that nobody could follow."""
    name = task_name(task_id)
    return FailedPrecondition(
        Reason.DEPENDENCY_TOO_DEEP,
        f"the dependencies of {name} cannot be followed: {why}; at most {MAX_DEPTH} steps are allowed",
        PreconditionViolation("TASK_DEPENDENCIES", name, "make the chain shorter"),
    )
