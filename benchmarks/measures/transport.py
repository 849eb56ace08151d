"""T1, T2: what a call costs before it does anything, and whether bursts are survived."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar

from stationmaster.v1 import agent_pb2

from benchmarks.goals import OURS, Figures, Goal
from benchmarks.measure import Measure, Side
from benchmarks.processes import all_cores, pin

# ListModels is the one method that touches no database; a page of one model keeps its answer small.
METHOD = "/stationmaster.v1.AgentService/ListModels"
REQUEST = agent_pb2.ListModelsRequest(page_size=1).SerializeToString()


class UnaryCalls(Measure):
    """Server and load on one core, so that neither waits for the other's scheduling."""

    id = "T1"
    title = "authenticated, validated, metered unary call without database, 16 callers, pinned to one core"
    goals: ClassVar = (Goal("T1", "rate", "echo", ">=", 0.80, "calls/s"),)

    def sides(self) -> Mapping[str, Side]:
        """Echo, ours."""
        return {"echo": self.floor, OURS: self.ours}

    async def prepare(self) -> None:
        """Pin; learn the size of our answer."""
        load, echo, server = await self.bench.load(), await self.bench.echo(), await self.bench.server()
        core = max(all_cores())
        for pid in (load.pid, echo.pid, server.pid):
            pin(pid, {core})
        self._size = int((await self._ours(0.2))["answer_bytes"])

    async def close(self) -> None:
        """Unpin."""
        for process in (await self.bench.load(), await self.bench.echo(), await self.bench.server()):
            pin(process.pid, all_cores())

    async def floor(self) -> Figures:
        """The echo of as many bytes."""
        echo = await self.bench.echo()
        method = f"/echo.Echo/{self._size}"
        return await self._run(target=echo.target, method=method, seconds=self.bench.plan.seconds)

    async def ours(self) -> Figures:
        """The call."""
        return await self._ours(self.bench.plan.seconds)

    async def _ours(self, seconds: float) -> Figures:
        server = await self.bench.server()
        return await self._run(target=server.target, method=METHOD, seconds=seconds, metadata=server.metadata)

    async def _run(self, **parameters: Any) -> Figures:
        load = await self.bench.load()
        return await load.run("unary", requests=[b64encode(REQUEST).decode()], callers=16, **parameters)


class Burst(Measure):
    """All at once, on one connection."""

    id = "T2"
    title = "burst of 10,000 calls: share that is answered"
    goals: ClassVar = (Goal("T2", "answered", "sent", ">=", 1.0, "calls"),)
    _count = 10_000

    def sides(self) -> Mapping[str, Side]:
        """What is sent, what is answered."""
        return {"sent": self.floor, OURS: self.ours}

    async def floor(self) -> Figures:
        """All of them."""
        return {"answered": self._count}

    async def ours(self) -> Figures:
        """As many as were answered."""
        server, load = await self.bench.server(), await self.bench.load()
        request = b64encode(REQUEST).decode()
        return await load.run(
            "burst", target=server.target, method=METHOD, request=request, count=self._count, metadata=server.metadata
        )
