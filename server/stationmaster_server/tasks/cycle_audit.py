"""Every cycle in an organization's graph of dependencies, in time that grows with its edges, off the event loop."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.embedder import Runner
from stationmaster_server.tasks import dependency_store

_LIMIT = timedelta(minutes=5)
_MOST_OF_A_KNOT = 100

Edges = Sequence[tuple[str, str]]


async def organizations(tx: Transaction) -> list[UUID]:
    """Those that have dependencies (a system transaction)."""
    return await dependency_store.organizations(tx)


async def cycles(database: Database, run: Runner, organization_id: UUID) -> list[list[str]]:
    """The cycles among the dependencies of an organization's tasks, each as a, .., a: see `find_cycles`."""
    async with database.system(autocommit=True) as tx:
        edges = await dependency_store.edges(tx, organization_id)
    return await run(find_cycles, edges, timeout=_LIMIT)


def find_cycles(edges: Edges) -> list[list[str]]:
    """Of each edge that is in a cycle, a shortest cycle that it is in; each cycle once, from its least task on.

    So every edge that has to be looked at is in one of them, and no other is. In a knot of very many the first
    hundred are told.
    """
    above: dict[str, list[str]] = defaultdict(list)
    for task, depends_on in edges:
        above[task].append(depends_on)
    return [
        cycle
        for component in _components(above)
        if _has_cycle(component, above)
        for cycle in _cycles_in(component, above)
    ]


def _has_cycle(component: set[str], above: dict[str, list[str]]) -> bool:
    return len(component) > 1 or any(task in above.get(task, ()) for task in component)


def _cycles_in(component: set[str], above: dict[str, list[str]]) -> list[list[str]]:
    within = {task: sorted(set(above[task]) & component) for task in sorted(component)}
    found: dict[tuple[str, ...], None] = {}
    for task, others in within.items():
        for other in others:
            way = _way(within, other, task)
            least = way.index(min(way))
            found[(*way[least:], *way[:least])] = None
            if len(found) == _MOST_OF_A_KNOT:
                break
        if len(found) == _MOST_OF_A_KNOT:
            break
    return [[*cycle, cycle[0]] for cycle in found]


def _way(within: dict[str, list[str]], start: str, end: str) -> list[str]:
    """A shortest way; there is one, for both are in the same component."""
    came_from = {start: start}
    queue = deque([start])
    while end not in came_from:
        task = queue.popleft()
        for following in within[task]:
            if following not in came_from:
                came_from[following] = task
                queue.append(following)
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]


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
