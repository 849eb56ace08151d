"""The engines that the rooms stand on: the event log, the work queue, and its worker."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.config import Settings
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.events.bus import PostgresBus
from stationmaster_server.events.log import EventLog, LogSettings
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.retention import BATCH, forget_ended
from stationmaster_server.work.run import Handler
from stationmaster_server.work.worker import Worker, WorkerSettings


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of this process."""

    log: EventLog
    queue: WorkQueue


async def build_engines(stack: AsyncExitStack, settings: Settings, database: Database, listener: Listener) -> Engines:
    """Start the event log and make the queue."""
    log = EventLog(database, PostgresBus(listener), LogSettings(keepalive=settings.events.keepalive))
    await log.start()
    stack.push_async_callback(log.close)
    notifier = Notifier(database)
    stack.push_async_callback(notifier.close)
    return Engines(log, WorkQueue(notifier))


def build_worker(
    settings: Settings, database: Database, listener: Listener, engines: Engines, handlers: Mapping[str, Handler]
) -> Worker:
    """Make the worker of this process; it starts last and stops first."""
    limits = WorkerSettings(slots=settings.work.slots, lease=settings.work.lease)
    return Worker(database, engines.queue, handlers, limits, listener=listener)


def forgetting(database: Database, keep: timedelta, needed: str) -> Routine:
    """The service that forgets work which ended longer ago than `keep`; `needed`: which stays, as of `forget_ended`."""

    async def forget() -> None:
        deleted = BATCH
        while deleted == BATCH:  # a transaction each, so that none holds many rows
            async with database.system() as tx:
                deleted = await forget_ended(tx, keep, needed=needed)

    what = "Forgets items of work that ended longer ago than `work.keep_ended`."
    return Routine("work-cleanup", what, timedelta(hours=1), forget, scope=Scope.ONE_SERVER)
