"""E1, E2: the event log without the transport, on the PostgreSQL of the floors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import ClassVar

from stationmaster_server.db.migrate import migrate

from benchmarks.goals import OURS, Figures, Goal
from benchmarks.measure import Measure, Side

_STREAMS = 64
_TEXT = " word1234"


class DurableEvents(Measure):
    """Each stream writes its next event once the last one is committed."""

    id = "E1"
    title = "durable events from 64 streams, committed"
    goals: ClassVar = (Goal("E1", "rate", "group-commit floor", ">=", 0.5, "events/s"),)

    def sides(self) -> Mapping[str, Side]:
        """The floor, ours."""
        return {"group-commit floor": self.floor, OURS: self.ours}

    async def prepare(self) -> None:
        """A database for each side."""
        postgres = await self.bench.postgres()
        self._floor_url = await postgres.database("events_floor")
        self._url = await postgres.database("events")
        await migrate(self._url)

    async def floor(self) -> Figures:
        """One INSERT from arrays for all that waited."""
        load, body = await self.bench.load(), json.dumps({"text": _TEXT, "step": 1})
        seconds = self.bench.plan.seconds
        return await load.run("group_commit", url=self._floor_url, streams=_STREAMS, seconds=seconds, body=body)

    async def ours(self) -> Figures:
        """Fenced, numbered without holes, fanned out, notified."""
        load, seconds = await self.bench.load(), self.bench.plan.seconds
        return await load.run("event_log", url=self._url, streams=_STREAMS, seconds=seconds, text=_TEXT)


class AcrossServers(Measure):
    """Two processes on one database; the first writes, the second watches."""

    id = "E2"
    title = "append to a watcher on another server"
    goals: ClassVar = (
        Goal("E2.p50", "p50", "NOTIFY floor", "<=", 4, "ms", title="append to a watcher on another server, p50"),
        Goal("E2.p99", "p99", "NOTIFY floor", "<=", 10, "ms", title="append to a watcher on another server, p99"),
    )
    _gap = 0.004

    def sides(self) -> Mapping[str, Side]:
        """The floor, ours."""
        return {"NOTIFY floor": self.floor, OURS: self.ours}

    async def prepare(self) -> None:
        """A migrated database."""
        self._url = await (await self.bench.postgres()).database("across")
        await migrate(self._url)

    @property
    def _count(self) -> int:
        return self.bench.plan.count(500, least=100)

    async def floor(self) -> Figures:
        """A bare NOTIFY, heard by the other process."""
        writer, reader = await self.bench.load(), await self.bench.load(2)
        hearing = asyncio.create_task(reader.run("listen", url=self._url, count=self._count))
        await asyncio.sleep(0.3)
        await writer.run("notify", url=self._url, count=self._count, gap=self._gap)
        return await hearing

    async def ours(self) -> Figures:
        """A durable event, read by the other process."""
        writer, reader = await self.bench.load(), await self.bench.load(2)
        stream = await writer.run("make_stream", url=self._url)
        watching = asyncio.create_task(reader.run("watch", url=self._url, count=self._count, **stream))
        await asyncio.sleep(0.5)
        await writer.run("append", url=self._url, count=self._count, gap=self._gap)
        return await watching
