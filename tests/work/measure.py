"""Measurements of the work engine and of its floors, as functions: each takes what it needs and returns figures."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import asyncpg
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.work.model import NewWork, Outcome, Succeeded
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import Worker, WorkerSettings

_FLOOR_CLAIM = """
UPDATE floor_work SET state = 1 WHERE id IN (
    SELECT id FROM floor_work WHERE state = 0 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
) RETURNING id, payload
"""


async def floor(url: str, count: int, batch: int = 100) -> tuple[float, float]:
    """W1's and W2's floor: rows submitted per second in bulk, and claimed and completed per second in batches."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE floor_work (id bigserial PRIMARY KEY, state int NOT NULL, payload text)")
    await connection.execute("CREATE INDEX ON floor_work (id) WHERE state = 0")
    started = time.perf_counter()
    await connection.execute(
        "INSERT INTO floor_work (state, payload) SELECT 0, p FROM unnest($1::text[]) AS p", ["{}"] * count
    )
    submitted = time.perf_counter()
    while rows := await connection.fetch(_FLOOR_CLAIM, batch):
        await connection.execute(
            "UPDATE floor_work SET state = 2 WHERE id = ANY($1::bigint[])", [row[0] for row in rows]
        )
    drained = time.perf_counter()
    await connection.execute("DROP TABLE floor_work")
    await connection.close()
    return count / (submitted - started), count / (drained - submitted)


async def floor_started_ms(url: str, rounds: int) -> list[float]:
    """W3's floor: insert, wake within the process, claim one; in milliseconds, sorted."""
    connection, other = await asyncpg.connect(url), await asyncpg.connect(url)
    await connection.execute("CREATE TABLE floor_work (id bigserial PRIMARY KEY, state int NOT NULL, payload text)")
    taken = []
    for _ in range(rounds):
        await asyncio.sleep(0.002)
        started = time.perf_counter()
        async with connection.transaction():
            await connection.execute("INSERT INTO floor_work (state, payload) VALUES (0, '{}')")
        await other.fetch(_FLOOR_CLAIM, 1)
        taken.append((time.perf_counter() - started) * 1000)
    await connection.execute("DROP TABLE floor_work")
    await connection.close()
    await other.close()
    return sorted(taken)


_UNDONE = "SELECT EXISTS (SELECT FROM work_items WHERE state IN ('QUEUED', 'RUNNING'))"


class Bench:
    """A queue and a worker whose handlers do nothing."""

    def __init__(self, database: Database, tenant: Tenant, slots: int = 200) -> None:
        self.database = database
        self.tenant = tenant
        self.notifier = Notifier(database)
        self.queue = WorkQueue(self.notifier, queue_limit=10_000_000)
        self.started = asyncio.Event()
        self.worker = Worker(database, self.queue, {"noop": self._noop}, WorkerSettings(slots=slots))

    async def _noop(self, run: Run) -> Outcome:
        self.started.set()
        return Succeeded()

    def new(self) -> NewWork:
        """An item that does nothing."""
        return NewWork(self.tenant.organization_id, self.tenant.user_id, "noop", new_id())

    async def submitted_per_second(self, count: int) -> float:
        """W2: rows submitted per second in one `submit_many`."""
        works = [self.new() for _ in range(count)]
        started = time.perf_counter()
        async with self.database.system() as tx:
            await self.queue.submit_many(tx, works)
        return count / (time.perf_counter() - started)

    async def drained_per_second(self) -> float:
        """W1: items that were submitted before, run and committed per second. Starts the worker."""
        async with self.database.system(autocommit=True) as tx:
            count = await tx.fetchval("SELECT count(*) FROM work_items WHERE state = 'QUEUED'")
        started = time.perf_counter()
        self.worker.start()
        async with self.database.system(autocommit=True) as tx:
            while await tx.fetchval(_UNDONE):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return float(count / (time.perf_counter() - started))

    async def started_ms(self, rounds: int, *, claim_here: bool) -> list[float]:
        """W3: from before the submitting transaction to the handler's first line, in milliseconds, sorted."""
        taken = []
        for _ in range(rounds):
            await asyncio.sleep(0.002)
            self.started.clear()
            started = time.perf_counter()
            async with self.database.system() as tx:
                await self.queue.submit(tx, self.new(), claim_here=claim_here)
            await self.started.wait()
            taken.append((time.perf_counter() - started) * 1000)
        return sorted(taken)

    async def close(self) -> None:
        """Stop the worker."""
        await self.worker.stop(timedelta(seconds=5))
        await self.notifier.close()
