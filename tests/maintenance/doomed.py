"""A server whose background service runs until it is killed: `python -m tests.maintenance.doomed URL LEASE_SECONDS`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.maintenance.alarms import Alarms
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.maintenance.registry import Registry
from stationmaster_server.telemetry.metrics import Metrics
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue

from tests.maintenance.services import Sample


async def main(url: str, lease: float) -> None:
    """Say when it runs, and run for ever."""
    database = await Database.connect(url, pool_size=1, system_pool_size=3, connect_timeout=timedelta(seconds=10))

    async def run() -> None:
        sys.stdout.write("running\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    listener = Listener(database)
    alarms = Alarms(database, AuditLog(database), WorkQueue(Notifier(database)))
    span = timedelta(seconds=lease)
    registry = Registry(database, listener, Metrics(), alarms, "1.0", dict, lease=span)
    registry.add(Sample(run, scope=Scope.ONE_SERVER, time_limit=timedelta(hours=1)))
    await listener.start()
    async with registry:
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
