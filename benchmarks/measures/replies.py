"""S3 to S7: conversations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from benchmarks.goals import ITSELF, OURS, Figures, Goal, beside
from benchmarks.measure import Measure, Side
from benchmarks.proxy import proxy


class Talk(Measure):
    """A measure whose sides are the same load on several servers."""

    async def raw(self, scenario: str, **parameters: Any) -> Figures:
        """On the raw floor."""
        target = (await self.bench.raw()).target
        return await (await self.bench.load()).run(scenario, kind="raw", target=target, **parameters)

    async def stationmaster(self, scenario: str, **parameters: Any) -> Figures:
        """On our server."""
        server = await self.bench.server()
        parameters = {"target": server.target, "metadata": server.metadata, **parameters}
        return await (await self.bench.load()).run(scenario, kind="ours", **parameters)

    async def agno(self, scenario: str, **parameters: Any) -> Figures:
        """On Agno's."""
        return await self._peer("agno", scenario, parameters)

    async def langgraph(self, scenario: str, **parameters: Any) -> Figures:
        """On LangGraph's."""
        return await self._peer("langgraph", scenario, parameters)

    async def _peer(self, name: str, scenario: str, parameters: Mapping[str, Any]) -> Figures:
        target = (await self.bench.peer(name)).target
        return await (await self.bench.load()).run(scenario, kind=name, target=target, **parameters)


class Cycle(Talk):
    """All a short conversation needs, by many callers."""

    id = "S3"
    title = "create + message + 20-token reply to the end, 16 callers"
    goals: ClassVar = (
        Goal("S3.raw", "rate", "raw floor", ">=", 0.50, "cycles/s"),
        Goal("S3.agno", "rate", "agno", ">=", 3, "cycles/s"),
        beside("S3.langgraph", "rate", "langgraph", "cycles/s"),
        Goal("S3.right", "right", ITSELF, ">=", 1, "of answers", title="S3's answers that are right and complete"),
    )

    def sides(self) -> Mapping[str, Side]:
        """The raw floor, ours, Agno, LangGraph."""
        load = {"callers": 16, "seconds": self.bench.plan.seconds, "words": 20}
        return {
            "raw floor": lambda: self.raw("cycles", **load),
            OURS: lambda: self.stationmaster("cycles", **load),
            "agno": lambda: self.agno("cycles", **load),
            "langgraph": lambda: self.langgraph("cycles", **load),
        }


class FirstToken(Talk):
    """From the message to the first word of the reply, in a new session each time."""

    id = "S4"
    title = "first token p50"
    goals: ClassVar = (
        Goal("S4.1", "one", "agno", "<=", 0.6, "ms", title="first token p50, 1 caller"),
        Goal("S4.16", "many", "agno", "<=", 0.6, "ms", title="first token p50, 16 callers"),
        beside("S4.1.langgraph", "one", "langgraph", "ms", title="first token p50, 1 caller"),
        beside("S4.16.langgraph", "many", "langgraph", "ms", title="first token p50, 16 callers"),
    )

    def sides(self) -> Mapping[str, Side]:
        """Ours, Agno, LangGraph."""
        return {
            OURS: lambda: self._both(self.stationmaster),
            "agno": lambda: self._both(self.agno),
            "langgraph": lambda: self._both(self.langgraph),
        }

    async def _both(self, run: Any) -> Figures:
        seconds = self.bench.plan.seconds
        one = await run("cycles", callers=1, seconds=seconds, words=20)
        many = await run("cycles", callers=16, seconds=seconds, words=20)
        return {"one": one["first_p50"], "many": many["first_p50"]}


class LongReply(Talk):
    """Replies of a thousand tokens."""

    id = "S5"
    title = "1,000-token reply"
    goals: ClassVar = (
        Goal("S5.1", "seconds", "agno", "<=", 0.6, "s", title="1,000-token reply, alone: time"),
        Goal("S5.16", "rate", "agno", ">=", 2.5, "tokens/s", title="1,000-token replies, sixteen at once"),
        beside("S5.1.langgraph", "seconds", "langgraph", "s", title="1,000-token reply, alone: time"),
        beside("S5.16.langgraph", "rate", "langgraph", "tokens/s", title="1,000-token replies, sixteen at once"),
    )

    def sides(self) -> Mapping[str, Side]:
        """Ours, Agno, LangGraph; the raw floor runs for the record."""
        return {
            "raw floor": lambda: self._both(self.raw),
            OURS: lambda: self._both(self.stationmaster),
            "agno": lambda: self._both(self.agno),
            "langgraph": lambda: self._both(self.langgraph),
        }

    async def _both(self, run: Any) -> Figures:
        one = await run("replies", callers=1, repeats=5, words=1000)
        many = await run("replies", callers=16, repeats=1, words=1000)
        return {"seconds": one["seconds"], "rate": many["rate"]}


class WireBytes(Talk):
    """What passes a TCP relay in both directions: the difference of a long and a short reply."""

    id = "S6"
    title = "bytes on the wire per token, a 1,000-token reply"
    goals: ClassVar = (Goal("S6", "bytes", ITSELF, "<=", 60, "bytes/token"),)

    def sides(self) -> Mapping[str, Side]:
        """Ours."""
        return {OURS: self.ours}

    async def ours(self) -> Figures:
        """Through the relay."""
        async with proxy((await self.bench.server()).target) as relay:
            passed = []
            for words in (1, 1001):
                before = relay.counted
                await self.stationmaster("replies", target=relay.target, callers=1, repeats=1, words=words)
                passed.append(relay.counted - before)
        return {"bytes": (passed[1] - passed[0]) / 1000}


class LateMessage(Measure):
    """A session with a thousand messages is as quick as a new one."""

    id = "S7"
    title = "1,000th message on one session against the first, 20-token reply"
    goals: ClassVar = (Goal("S7", "last", "first", "<=", 1.05, "ms"),)

    def sides(self) -> Mapping[str, Side]:
        """Both are ours, and run in turn, message by message."""
        return {"first": self.first, OURS: self.ours}

    async def prepare(self) -> None:
        """Long sessions."""
        server, load = await self.bench.server(), await self.bench.load()
        made = await load.run(
            "grow",
            target=server.target,
            metadata=server.metadata,
            count=self.bench.plan.rounds,
            messages=self.bench.plan.count(999, least=50),
            words=20,
        )
        self._sessions = list(made["sessions"])

    async def first(self) -> Figures:
        """Messages to new sessions and to a long one."""
        server, load = await self.bench.server(), await self.bench.load()
        self._figures = await load.run(
            "first_and_last",
            target=server.target,
            metadata=server.metadata,
            session=self._sessions.pop(),
            repeats=30,
            words=20,
        )
        return {"last": self._figures["first"]}

    async def ours(self) -> Figures:
        """What the same run gave."""
        return {"last": self._figures["last"]}
