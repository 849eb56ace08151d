"""Our work engine in the load's process, without the transport: a queue, and a worker whose handlers do nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.work.model import NewWork, Outcome, Succeeded
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import Worker, WorkerSettings

from benchmarks.stats import percentile

_UNDONE = "SELECT EXISTS (SELECT FROM work_items WHERE state IN ('QUEUED', 'RUNNING'))"
_SLOTS = 200
_WARM_UP = 5


class Engine:
    """What a server has of the work engine."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._notifier = Notifier(database)
        self._queue = WorkQueue(self._notifier)
        self.worker = Worker(database, self._queue, {"noop": self._noop}, WorkerSettings(slots=_SLOTS))
        self.started = asyncio.Event()
        self.began = 0.0
        self._organization_id, self._user_id = new_id(), new_id()

    async def _noop(self, run: Run) -> Outcome:
        self.began = self.began or time.perf_counter()
        self.started.set()
        return Succeeded()

    def _new(self) -> NewWork:
        return NewWork(self._organization_id, self._user_id, "noop", new_id())

    async def submit(self) -> None:
        """One, in a transaction of its own."""
        async with self.database.system() as tx:
            await self._queue.submit(tx, self._new(), claim_here=True)

    async def submit_many(self, count: int) -> None:
        """So many in one transaction."""
        works = [self._new() for _ in range(count)]
        async with self.database.system() as tx:
            await self._queue.submit_many(tx, works)

    async def undone(self) -> bool:
        """Whether anything waits or runs, as others see it."""
        async with self.database.system(autocommit=True) as tx:
            return bool(await tx.fetchval(_UNDONE))

    async def close(self) -> None:
        """Stop."""
        await self.worker.stop(timedelta(seconds=5))
        await self._notifier.close()


@asynccontextmanager
async def _engine(url: str) -> AsyncIterator[Engine]:
    """On empty tables, with the pools that a server has."""
    database = await Database.connect(url, pool_size=12, system_pool_size=6, connect_timeout=timedelta(seconds=30))
    async with database.system() as tx:
        await tx.execute("DELETE FROM work_items")
    engine = Engine(database)
    try:
        yield engine
    finally:
        await engine.close()
        await database.close()


async def work_bulk(*, url: str, count: int) -> dict[str, float]:
    """Items submitted a second, all in one call."""
    async with _engine(url) as engine:
        await engine.submit_many(10)
        began = time.perf_counter()
        await engine.submit_many(count)
        return {"rate": count / (time.perf_counter() - began)}


async def work_one_by_one(*, url: str, callers: int, count: int) -> dict[str, float]:
    """Items submitted a second, each in a transaction of its own, by callers that wait for the commit."""
    left = iter(range(count))
    async with _engine(url) as engine:

        async def call() -> None:
            for _ in left:
                await engine.submit()

        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        return {"rate": count / (time.perf_counter() - began)}


async def work_drain(*, url: str, count: int) -> dict[str, float]:
    """Items a second from the first one's start to the commit of the last one's end."""
    async with _engine(url) as engine:
        await engine.submit_many(count)
        engine.worker.start()
        while await engine.undone():  # noqa: ASYNC110 - the tables set no event
            await asyncio.sleep(0.005)
        return {"rate": count / (time.perf_counter() - engine.began)}


async def work_low_load(*, url: str, count: int, gap: float) -> dict[str, float]:
    """Milliseconds from before the submitting transaction to the handler's first line, one item at a time."""
    took = []
    async with _engine(url) as engine:
        engine.worker.start()
        for _ in range(count + _WARM_UP):
            await asyncio.sleep(gap)
            engine.started.clear()
            began = time.perf_counter()
            await engine.submit()
            await engine.started.wait()
            took.append((time.perf_counter() - began) * 1000)
    return {"p50": percentile(took[_WARM_UP:], 0.5)}
