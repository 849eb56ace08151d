"""M1, B1: what a server takes to run and to start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from benchmarks.goals import OURS, Figures, Goal
from benchmarks.measure import Measure, Side
from benchmarks.peers.server import peer_server
from benchmarks.postgres import temporary_folder
from benchmarks.servers import Server, our_server


class Memory(Measure):
    """New servers in each round; PostgreSQL told apart."""

    id = "M1"
    title = "server memory after 1,000 sessions with a turn each"
    goals: ClassVar = (Goal("M1", "mib", "adk", "<=", 1.0, "MiB"),)

    def sides(self) -> Mapping[str, Side]:
        """Ours, ADK."""
        return {OURS: self.ours, "adk": self.peer}

    async def ours(self) -> Figures:
        """Ours and its supervisor of PostgreSQL."""
        async with our_server() as server:
            load = {"target": server.target, "metadata": server.metadata}
            await self._fill("ours", load)
            return {"mib": server.memory_bytes() / 2**20}

    async def peer(self) -> Figures:
        """ADK's API server."""
        async with peer_server(await self.bench.recipe("adk")) as server:
            await self._fill("adk", {"target": server.target})
            return {"mib": server.memory_bytes() / 2**20}

    async def _fill(self, kind: str, parameters: Mapping[str, Any]) -> None:
        load, count = await self.bench.load(), self.bench.plan.count(1000, least=100)
        # ADK loses answers at many callers at once.
        await load.run("sessions", kind=kind, callers=4, count=count, words=20, **parameters)


class Start(Measure):
    """From the command to an answer, with a data folder that exists."""

    id = "B1"
    title = "start to SERVING, embedded PostgreSQL, data folder exists"
    goals: ClassVar = (Goal("B1", "seconds", "adk", "<=", 1.0, "s"),)

    def sides(self) -> Mapping[str, Side]:
        """Ours, ADK."""
        return {OURS: self.ours, "adk": self.peer}

    async def prepare(self) -> None:
        """The data folder."""
        self._folder = temporary_folder("start")
        self._server = Server(self._folder.__enter__())
        await self._server.start()
        await self._server.stop()

    async def close(self) -> None:
        """Remove it."""
        await self._server.stop()
        self._folder.__exit__(None, None, None)

    async def ours(self) -> Figures:
        """Until the health check says SERVING."""
        seconds = await self._server.start()
        await self._server.stop()
        return {"seconds": seconds}

    async def peer(self) -> Figures:
        """Until the list of apps is answered."""
        async with peer_server(await self.bench.recipe("adk"), started=False) as server:
            await server.start()  # the first one makes its database
            await server.stop()
            return {"seconds": await server.start()}
