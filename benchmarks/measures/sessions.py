"""S1, S2: reading and creating a session."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar

from stationmaster.v1 import session_pb2

from benchmarks.goals import OURS, Figures, Goal, beside
from benchmarks.load.ours import SERVICE, create_request
from benchmarks.measure import Measure, Side

_SESSIONS = 64
_REQUEST_ID_FIELD = session_pb2.CreateSessionRequest.DESCRIPTOR.fields_by_name["request_id"].number


class GetSession(Measure):
    """Many callers read some sessions in turn."""

    id = "S1"
    title = "GetSession, 16 callers"
    goals: ClassVar = (
        Goal("S1.echo", "rate", "echo", ">=", 0.40, "calls/s"),
        Goal("S1.orm", "rate", "orm", ">=", 2.5, "calls/s"),
    )

    def sides(self) -> Mapping[str, Side]:
        """Echo, ours, the twin."""
        return {"echo": self.floor, OURS: self.ours, "orm": self.twin}

    async def prepare(self) -> None:
        """Sessions to read, on both servers."""
        server, twin, load = await self.bench.server(), await self.bench.twin(), await self.bench.load()
        self._ours = await load.run("make_sessions", target=server.target, metadata=server.metadata, count=_SESSIONS)
        self._twins = await load.run("make_sessions", target=twin.target, count=_SESSIONS)

    async def floor(self) -> Figures:
        """The echo of as many bytes."""
        echo = await self.bench.echo()
        return await self._run(self._ours, target=echo.target, method=f"/echo.Echo/{self._ours['answer_bytes']}")

    async def ours(self) -> Figures:
        """The call."""
        server = await self.bench.server()
        return await self._run(
            self._ours, target=server.target, method=f"{SERVICE}/GetSession", metadata=server.metadata
        )

    async def twin(self) -> Figures:
        """The call in the plain way."""
        twin = await self.bench.twin()
        return await self._run(self._twins, target=twin.target, method=f"{SERVICE}/GetSession")

    async def _run(self, made: Mapping[str, Any], **parameters: Any) -> Figures:
        load = await self.bench.load()
        seconds = self.bench.plan.seconds
        return await load.run("unary", requests=made["requests"], callers=16, seconds=seconds, **parameters)


class CreateSession(Measure):
    """Session, workspace, quota, request id, audit event and first event in one commit each."""

    id = "S2"
    title = "CreateSession with quota, audit and event in one commit, 64 callers"
    goals: ClassVar = (
        Goal("S2.echo", "rate", "echo", ">=", 0.30, "calls/s"),
        Goal("S2.orm", "rate", "orm", ">=", 3, "calls/s"),
        Goal("S2.agno", "rate", "agno", ">=", 5, "calls/s"),
        beside("S2.langgraph", "rate", "langgraph", "calls/s"),
    )

    def sides(self) -> Mapping[str, Side]:
        """Echo, ours, the twin, Agno, LangGraph."""
        return {
            "echo": self.floor,
            OURS: self.ours,
            "orm": self.twin,
            "agno": lambda: self.peer("agno"),
            "langgraph": lambda: self.peer("langgraph"),
        }

    async def prepare(self) -> None:
        """Learn the size of our answer."""
        server, load = await self.bench.server(), await self.bench.load()
        made = await load.run("make_sessions", target=server.target, metadata=server.metadata, count=1)
        self._size = made["answer_bytes"]

    async def floor(self) -> Figures:
        """The echo of as many bytes."""
        echo = await self.bench.echo()
        return await self._run(target=echo.target, method=f"/echo.Echo/{self._size}")

    async def ours(self) -> Figures:
        """The call."""
        server = await self.bench.server()
        return await self._run(target=server.target, method=f"{SERVICE}/CreateSession", metadata=server.metadata)

    async def twin(self) -> Figures:
        """The call in the plain way."""
        twin = await self.bench.twin()
        return await self._run(target=twin.target, method=f"{SERVICE}/CreateSession")

    async def peer(self, name: str) -> Figures:
        """The same over HTTP."""
        peer, load = await self.bench.peer(name), await self.bench.load()
        seconds = self.bench.plan.seconds
        return await load.run("creations", kind=name, target=peer.target, callers=64, seconds=seconds)

    async def _run(self, **parameters: Any) -> Figures:
        load = await self.bench.load()
        return await load.run(
            "unary",
            requests=[b64encode(create_request()).decode()],
            request_id_field=_REQUEST_ID_FIELD,
            callers=64,
            seconds=self.bench.plan.seconds,
            **parameters,
        )
