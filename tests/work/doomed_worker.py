"""A worker in a process of its own, to be killed or stopped: `doomed_worker.py DATABASE_URL LEASE_SECONDS`."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import LeaseLost
from stationmaster_server.work.model import Outcome, Succeeded
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import Worker, WorkerSettings

SAW_LEASE_LOST = 3


async def main(url: str, lease_seconds: float) -> None:
    """Work until killed."""
    database = await Database.connect(url, pool_size=2, system_pool_size=4, connect_timeout=timedelta(seconds=10))
    queue = WorkQueue(Notifier(database))

    async def never_ends(run: Run) -> Outcome:
        await asyncio.Event().wait()
        return Succeeded()

    async def writes_when_awake(run: Run) -> Outcome:
        """Notices, without asking the database, that it was stopped; then tries to write."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        try:
            while loop.time() - last < lease_seconds / 2:
                last = loop.time()
                await asyncio.sleep(0.05)
            async with database.system() as tx:
                await queue.complete(tx, run, Succeeded({"by": "stalled"}))
        except LeaseLost:
            os._exit(SAW_LEASE_LOST)
        except asyncio.CancelledError:
            # The worker's heart was awake first, and stopped the handler before it could try.
            os._exit(SAW_LEASE_LOST if run.lost else 1)
        os._exit(0)

    settings = WorkerSettings(lease=timedelta(seconds=lease_seconds), poll=timedelta(milliseconds=100))
    handlers = {"doomed": never_ends, "writes_when_awake": writes_when_awake}
    Worker(database, queue, handlers, settings).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
