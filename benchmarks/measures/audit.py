"""A1, A2: what the audit tree costs those who write, how far behind its checkpoints are, and how fast it grows."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar

from stationmaster.v1 import session_pb2
from stationmaster_server.db.migrate import migrate

from benchmarks.goals import ITSELF, OURS, Figures, Goal
from benchmarks.load.ours import SERVICE, create_request
from benchmarks.measure import Measure, Side
from benchmarks.servers import Server

_REQUEST_ID_FIELD = session_pb2.CreateSessionRequest.DESCRIPTOR.fields_by_name["request_id"].number
_CALLERS = 64
_EVENTS = 50_000
_ORGANIZATIONS = 16


class TreeCost(Measure):
    """The same calls on a server that puts events into the tree and signs, and on one that leaves them in the queue."""

    id = "A1"
    title = "CreateSession with the audit tree running, 64 callers"
    goals: ClassVar = (Goal("A1.without", "rate", "without", ">=", 0.90, "calls/s"),)

    def sides(self) -> Mapping[str, Side]:
        """Without the tree, with it."""
        return {"without": self.without, OURS: self.ours}

    async def without(self) -> Figures:
        """Events are written and queued."""
        return await self._run(await self.bench.server_without_tree())

    async def ours(self) -> Figures:
        """Everything."""
        return await self._run(await self.bench.server())

    async def _run(self, server: Server) -> Figures:
        return await (await self.bench.load()).run("unary", **creations(server, self.bench.plan.seconds))


class CheckpointLag(Measure):
    """From an event's commit to its proof under a signed checkpoint, while many create sessions."""

    id = "A1L"
    title = "an event without a checkpoint under load, the worst"
    goals: ClassVar = (Goal("A1L.lag", "worst", ITSELF, "<=", 1.5, "s"),)

    def sides(self) -> Mapping[str, Side]:
        """Ours."""
        return {OURS: self.ours}

    async def ours(self) -> Figures:
        """Load from one process, the measurement from another."""
        server, seconds = await self.bench.server(), max(5.0, self.bench.plan.seconds)
        load, watcher = await self.bench.load(2), await self.bench.load()
        loading = asyncio.create_task(load.run("unary", **creations(server, seconds)))
        lag = await watcher.run("checkpoint_lag", target=server.target, metadata=server.metadata, seconds=seconds)
        await loading
        return lag


class Sequenced(Measure):
    """A backlog of events of several organizations, in process, to the commit of the last one's node."""

    id = "A2"
    title = "audit rows sequenced into their trees"
    goals: ClassVar = (Goal("A2.floor", "rate", "unnest floor", ">=", 0.30, "rows/s"),)

    def sides(self) -> Mapping[str, Side]:
        """The floor, ours."""
        return {"unnest floor": self.floor, OURS: self.ours}

    async def prepare(self) -> None:
        """A database for each side."""
        postgres = await self.bench.postgres()
        self._floor_url, self._url = await postgres.database("audit_floor"), await postgres.database("audit")
        await migrate(self._url)

    async def floor(self) -> Figures:
        """Rows from arrays."""
        load, count = await self.bench.load(), self.bench.plan.count(_EVENTS, least=5000)
        return await load.run("floor_audit", url=self._floor_url, count=count, organizations=_ORGANIZATIONS)

    async def ours(self) -> Figures:
        """Places, commitments, leaves, nodes, right edges."""
        load, count = await self.bench.load(), self.bench.plan.count(_EVENTS, least=5000)
        return await load.run("audit_place", url=self._url, count=count, organizations=_ORGANIZATIONS)


def creations(server: Server, seconds: float) -> dict[str, Any]:
    """Parameters of `unary`: sessions are created."""
    return {
        "target": server.target,
        "metadata": server.metadata,
        "method": f"{SERVICE}/CreateSession",
        "requests": [b64encode(create_request()).decode()],
        "request_id_field": _REQUEST_ID_FIELD,
        "callers": _CALLERS,
        "seconds": seconds,
    }
