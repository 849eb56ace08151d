"""D1: what an edge costs in a large graph of dependencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from stationmaster_server.db.migrate import migrate

from benchmarks.goals import OURS, Figures, Goal
from benchmarks.measure import Measure, Side

_EDGES = 100_000
_ADDED = 400


class AddDependency(Measure):
    """Edges added one by one, in process, to a graph of forty layers; the floor inserts the row alone."""

    id = "D1"
    title = "a dependency added to 100,000"
    goals: ClassVar = (Goal("D1", "p50", "bare insert", "<=", 3.0, "s"),)

    def sides(self) -> Mapping[str, Side]:
        """The floor, ours."""
        return {"bare insert": self.floor, OURS: self.ours}

    async def prepare(self) -> None:
        """The graph."""
        self._url = await (await self.bench.postgres()).database("graph")
        await migrate(self._url)
        load = await self.bench.load()
        self._graph = await load.run("make_graph", url=self._url, edges=self.bench.plan.count(_EDGES, least=2000))
        self._seed = 0

    async def floor(self) -> Figures:
        """The row."""
        return await self._run("bare_edges")

    async def ours(self) -> Figures:
        """The call's own work: rights, cycles, levels, the row, the audit event."""
        return await self._run("add_edges")

    async def _run(self, what: str) -> Figures:
        self._seed += 1
        graph: dict[str, Any] = self._graph
        load, count = await self.bench.load(), self.bench.plan.count(_ADDED, least=50)
        parameters = {"tenant": graph["tenant"], "width": graph["width"], "count": count, "seed": self._seed}
        return await load.run(what, url=self._url, **parameters)
