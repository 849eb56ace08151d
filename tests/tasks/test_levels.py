"""The levels of tasks: exact after any changes of the graph, and as good at finding cycles as looking at everything."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, Reason
from stationmaster_server.tasks import dependency_store, level_store, levels
from stationmaster_server.tasks.model import MAX_DEPTH, FailurePolicy

Graph = Mapping[str, set[str]]
"""What each task depends on."""


def depths(graph: Graph) -> dict[str, int]:
    """The longest chain above each task, by looking at everything."""
    found: dict[str, int] = {}

    def depth(task: str) -> int:
        if task not in found:
            found[task] = max((depth(other) + 1 for other in graph[task]), default=0)
        return found[task]

    for task in graph:
        depth(task)
    return found


def reaches(graph: Graph, start: str, goal: str) -> bool:
    """Whether a task depends on another one, however indirectly."""
    seen, left = {start}, [start]
    while left:
        task = left.pop()
        if task == goal:
            return True
        left += graph[task] - seen
        seen |= graph[task]
    return False


async def add(tx: Transaction, tenant: Tenant, task: str, depends_on: str) -> None:
    await levels.admit(tx, tenant.organization_id, task, depends_on)
    await dependency_store.insert(tx, tenant.organization_id, task, depends_on, FailurePolicy.BLOCK)


async def remove(tx: Transaction, tenant: Tenant, task: str, depends_on: str) -> None:
    await dependency_store.delete(tx, tenant.organization_id, task, depends_on)
    await levels.settle(tx, tenant.organization_id, task)


@pytest.mark.parametrize("seed", range(6))
async def test_levels_are_exact_and_exactly_the_edges_of_cycles_are_refused(
    database: Database, tenant: Tenant, seed: int
) -> None:
    dice = random.Random(seed)
    names = [f"t{number}" for number in range(dice.choice([6, 15, 30]))]
    graph: dict[str, set[str]] = {name: set() for name in names}
    refused = 0
    async with database.system() as tx:
        for _ in range(250):
            edges = [(task, other) for task in names for other in graph[task]]
            if edges and dice.random() < 0.3:
                task, other = dice.choice(edges)
                await remove(tx, tenant, task, other)
                graph[task].remove(other)
            else:
                task, other = dice.choice(names), dice.choice(names)
                if other in graph[task]:
                    continue
                if reaches(graph, other, task):
                    with pytest.raises(FailedPrecondition) as raised:
                        await levels.admit(tx, tenant.organization_id, task, other)
                    assert raised.value.reason is Reason.DEPENDENCY_CYCLE
                    path = raised.value.metadata["path"].split(",")
                    assert path[0] == path[-1] == f"tasks/{task}"
                    refused += 1
                    continue
                await add(tx, tenant, task, other)
                graph[task].add(other)
            found = await level_store.get(tx, tenant.organization_id, names)
            assert {name: found.get(name, 0) for name in names} == depths(graph)
    assert refused > 10


async def test_a_chain_that_is_too_long_is_refused_wherever_its_last_edge_goes(
    database: Database, tenant: Tenant
) -> None:
    async with database.system() as tx:
        for number in range(1, MAX_DEPTH + 1):
            await add(tx, tenant, f"t{number}", f"t{number - 1}")
        for task, depends_on in (("t51", "t50"), ("t0", "before")):
            with pytest.raises(FailedPrecondition) as raised:
                await levels.admit(tx, tenant.organization_id, task, depends_on)
            assert raised.value.reason is Reason.DEPENDENCY_TOO_DEEP
        with pytest.raises(FailedPrecondition) as raised:
            await levels.admit(tx, tenant.organization_id, "t0", "t50")
        assert raised.value.reason is Reason.DEPENDENCY_CYCLE
        await remove(tx, tenant, "t25", "t24")
        await add(tx, tenant, "t0", "before")
        assert (await level_store.get(tx, tenant.organization_id, ["t24", "t25", "t50"])) == {
            "t24": 25,
            "t25": 0,
            "t50": 25,
        }
