"""procrastinate: jobs in PostgreSQL, twenty at a time, with its own connector, woken by NOTIFY."""

from __future__ import annotations

from benchmarks.peers.environment import environment
from benchmarks.peers.jobs import JobRecipe

VERSION = "3.10.0"

_JOBS = """
import logging
from contextlib import asynccontextmanager

from procrastinate import App, PsycopgConnector

logging.disable(logging.CRITICAL)


class Jobs(Base):
    UNDONE = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"

    async def open(self, url):
        self.probe = await asyncpg.connect(url)
        self.app = App(connector=PsycopgConnector(conninfo=url, min_size=6, max_size=24))
        await self.app.open_async()
        if not await self.probe.fetchval("SELECT to_regclass('procrastinate_jobs') IS NOT NULL"):
            await self.app.schema_manager.apply_schema_async()
        await self.probe.execute("TRUNCATE procrastinate_jobs CASCADE")

        @self.app.task(name="noop")
        async def noop():
            self.noop()

        self.task = noop

    async def enqueue(self):
        await self.task.defer_async()

    async def enqueue_many(self, count):
        await self.task.batch_defer_async(*({} for _ in range(count)))

    @asynccontextmanager
    async def worker(self):
        running = asyncio.create_task(self.app.run_worker_async(concurrency=20, install_signal_handlers=False))
        await asyncio.sleep(0 if self.started is None else 1)
        yield running
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def close(self):
        await self.app.close_async()
        await self.probe.close()
"""


async def recipe() -> JobRecipe:
    """How to run it, once it is installed. Raises Skipped."""
    programs = await environment(
        "procrastinate", (f"procrastinate=={VERSION}", "psycopg[binary,pool]", "asyncpg", "uvloop")
    )
    return JobRecipe("procrastinate", VERSION, programs / "python", _JOBS)
