"""pgqueuer: jobs in PostgreSQL, claimed a hundred at once, as its documentation sets it up, on asyncpg."""

from __future__ import annotations

from benchmarks.peers.environment import environment
from benchmarks.peers.jobs import JobRecipe

VERSION = "1.6.0"

_JOBS = """
from contextlib import asynccontextmanager

from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries


class Jobs(Base):
    UNDONE = "SELECT EXISTS (SELECT FROM pgqueuer)"

    async def open(self, url):
        self.pool = await asyncpg.create_pool(url, min_size=6, max_size=16)
        self.probe = await asyncpg.connect(url)
        self.connection = await asyncpg.connect(url)
        self.queries = Queries(AsyncpgPoolDriver(self.pool))
        if not await self.queries.has_table("pgqueuer"):
            await self.queries.install()
        await self.pool.execute("TRUNCATE pgqueuer, pgqueuer_log")

    async def enqueue(self):
        await self.queries.enqueue("noop", b"{}")

    async def enqueue_many(self, count):
        await self.queries.enqueue(["noop"] * count, [b"{}"] * count, [0] * count)

    @asynccontextmanager
    async def worker(self):
        manager = QueueManager(Queries(AsyncpgDriver(self.connection)))

        @manager.entrypoint("noop")
        async def noop(job):
            self.noop()

        running = asyncio.create_task(manager.run(batch_size=100))
        await asyncio.sleep(0 if self.started is None else 1)
        yield running
        manager.shutdown.set()
        await running

    async def close(self):
        await self.pool.close()
        await self.probe.close()
        await self.connection.close()
"""


async def recipe() -> JobRecipe:
    """How to run it, once it is installed. Raises Skipped."""
    programs = await environment("pgqueuer", (f"pgqueuer[asyncpg]=={VERSION}", "uvloop"))
    return JobRecipe("pgqueuer", VERSION, programs / "python", _JOBS)
