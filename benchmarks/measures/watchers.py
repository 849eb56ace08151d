"""E3, E4: many readers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar

from google.protobuf.timestamp_pb2 import Timestamp
from stationmaster.v1 import event_pb2, session_pb2

from benchmarks.floors.run import floor
from benchmarks.generator import generator
from benchmarks.goals import OURS, Figures, Goal
from benchmarks.load.ours import SERVICE
from benchmarks.measure import Measure, Side
from benchmarks.processes import memory_bytes
from benchmarks.servers import our_server

_WATCHERS = 100


class FanOut(Measure):
    """A reply that a hundred callers watch. An event is a word that the model said, on both sides."""

    id = "E3"
    title = "100 watchers of one stream: written events delivered"
    goals: ClassVar = (Goal("E3", "rate", "one event per message", ">=", 5, "events/s"),)

    def sides(self) -> Mapping[str, Side]:
        """The floor, ours."""
        return {"one event per message": self.floor, OURS: self.ours}

    async def floor(self) -> Figures:
        """A message of an event's size for each event and reader."""
        echo, load = await self.bench.echo(), await self.bench.load()
        count = self.bench.plan.count(1000)
        return await load.run("messages", target=echo.target, watchers=_WATCHERS, size=_event_size(), count=count)

    async def ours(self) -> Figures:
        """WatchSession, while SendMessage makes the model talk."""
        server, load = await self.bench.server(), await self.bench.load()
        words = self.bench.plan.count(5000)
        return await load.run(
            "watchers", target=server.target, watchers=_WATCHERS, words=words, metadata=server.metadata
        )


def _event_size() -> int:
    ids = "0" * 36
    event = event_pb2.Event(
        sequence=500,
        create_time=Timestamp(seconds=1_800_000_000, nanos=500_000_000),
        turn=f"sessions/{ids}/turns/{ids}",
        text_delta=event_pb2.TextDelta(text=" word500", step=1),
    )
    return session_pb2.WatchSessionResponse(events=[event], last_sequence=500).ByteSize()


class IdleWatchers(Measure):
    """Streams that wait, ten for each session; server and load are new in each round."""

    id = "E4"
    title = "idle watcher: server memory each"
    goals: ClassVar = (Goal("E4", "kib", "idle grpc.aio stream", "<=", 1.7, "KiB"),)

    def sides(self) -> Mapping[str, Side]:
        """The floor, ours."""
        return {"idle grpc.aio stream": self.floor, OURS: self.ours}

    @property
    def _count(self) -> int:
        return self.bench.plan.count(10_000, least=1_000)

    async def floor(self) -> Figures:
        """Bare streams that had one message."""
        async with floor("benchmarks.floors.echo") as echo:
            request = b64encode(b"x" * 46).decode()
            return await self._held(
                lambda: memory_bytes(echo.pid), target=echo.target, method="/echo.Stream/64-0", requests=[request]
            )

    async def ours(self) -> Figures:
        """WatchSession on sessions in which nothing happens."""
        load = await self.bench.load()
        async with our_server() as server:
            made = await load.run(
                "make_sessions", target=server.target, metadata=server.metadata, count=self._count // 10
            )
            return await self._held(
                lambda: memory_bytes(server.pid),
                target=server.target,
                method=f"{SERVICE}/WatchSession",
                requests=made["requests"],
                metadata=server.metadata,
            )

    async def _held(self, memory: Any, **parameters: Any) -> Figures:
        async with generator() as load:
            await load.run("hold", count=200, **parameters)  # what the first streams alone cost
            await load.run("release")
            before = memory()
            await load.run("hold", count=self._count, **parameters)
            return {"kib": (memory() - before) / self._count / 1024}
