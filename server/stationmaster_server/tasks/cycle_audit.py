"""Every cycle in an organization's graph of dependencies, in time that grows with its edges, off the event loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.embedder import Runner
from stationmaster_server.tasks import dependency_store

_LIMIT = timedelta(minutes=5)

Edges = Sequence[tuple[str, str]]


async def organizations(tx: Transaction) -> list[UUID]:
    """Those that have dependencies (a system transaction)."""
    return await dependency_store.organizations(tx)


async def cycles(database: Database, run: Runner, organization_id: UUID) -> list[list[str]]:
    """One cycle of each group of tasks that depend on each other: a, .., a. All of them are in some cycle."""
    async with database.system(autocommit=True) as tx:
        edges = await dependency_store.edges(tx, organization_id)
    return await run(find_cycles, edges, timeout=_LIMIT)


def find_cycles(edges: Edges) -> list[list[str]]:
    """A cycle of each strongly connected component that has one, the tasks in order. No recursion: chains are long."""
    above: dict[str, list[str]] = defaultdict(list)
    for task, depends_on in edges:
        above[task].append(depends_on)
    return [_cycle_in(component, above) for component in _components(above) if _has_cycle(component, above)]


def _has_cycle(component: set[str], above: dict[str, list[str]]) -> bool:
    return len(component) > 1 or any(task in above.get(task, ()) for task in component)


def _cycle_in(component: set[str], above: dict[str, list[str]]) -> list[str]:
    """Walk within the component until a task comes again; what lies between is a cycle."""
    path, place = [min(component)], {min(component): 0}
    while True:
        following = min(task for task in above[path[-1]] if task in component)
        if following in place:
            return [*path[place[following] :], following]
        place[following] = len(path)
        path.append(following)


def _components(above: dict[str, list[str]]) -> list[set[str]]:
    """Tarjan's strongly connected components (1972), with a stack of its own."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    waiting: list[str] = []
    on_stack: set[str] = set()
    found: list[set[str]] = []
    for start in list(above):
        if start in number:
            continue
        walk = [(start, iter(above[start]))]
        number[start] = low[start] = len(number)
        waiting.append(start)
        on_stack.add(start)
        while walk:
            task, rest = walk[-1]
            for following in rest:
                if following not in number:
                    number[following] = low[following] = len(number)
                    waiting.append(following)
                    on_stack.add(following)
                    walk.append((following, iter(above.get(following, ()))))
                    break
                if following in on_stack:
                    low[task] = min(low[task], number[following])
            else:
                walk.pop()
                if walk:
                    low[walk[-1][0]] = min(low[walk[-1][0]], low[task])
                if low[task] == number[task]:
                    found.append(_take(waiting, on_stack, task))
    return found


def _take(waiting: list[str], on_stack: set[str], root: str) -> set[str]:
    component: set[str] = set()
    while root not in component:
        component.add(waiting.pop())
    on_stack -= component
    return component
