"""Servers that do nothing but fire schedules, by a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.embedder import LocalEmbedder
from stationmaster_server.embedding.hashing import HashingEncoder
from stationmaster_server.events.bus import PostgresBus
from stationmaster_server.events.log import EventLog
from stationmaster_server.identity.system import system_caller
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.tasks import store
from stationmaster_server.tasks.filling import Filling
from stationmaster_server.tasks.firing import Firing
from stationmaster_server.tasks.kinds.registry import Kinds
from stationmaster_server.tasks.model import Task
from stationmaster_server.tasks.schedule_model import Schedule
from stationmaster_server.tasks.service import Tasks
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.templating.templates import Templates
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue

from tests.fixtures.reports import reports_of
from tests.tasks.kinds import Steered


@dataclass
class Clock:
    """Shows what it is set to."""

    at: datetime

    def __call__(self) -> datetime:
        return self.at


@dataclass(frozen=True)
class Firer:
    """One server."""

    database: Database
    services: TaskServices
    tasks: Tasks
    firing: Firing

    async def create(self, tenant: Tenant, task_id: str, schedule: Schedule, **fields: Any) -> Task:
        """A task of the kind `steered`, whose schedule begins now."""
        new = Task(task_id, "steered", tenant.user_id, tenant.user_id, schedule=schedule, **fields)
        return await self.tasks.create(system_caller(tenant.organization_id, tenant.user_id, request_id="test"), new)

    async def get(self, tenant: Tenant, task_id: str) -> Task:
        """A task as it stands."""
        async with self.database.system(autocommit=True) as tx:
            return await store.get(tx, tenant.organization_id, task_id)

    async def fired(self, task: Task) -> list[datetime]:
        """The due times that there are executions for."""
        async with self.database.system(autocommit=True) as tx:
            rows = await tx.fetch("SELECT scheduled_for FROM executions WHERE task_uid = $1 ORDER BY 1", task.uid)
        return [row["scheduled_for"] for row in rows]


async def states(server: Firer) -> list[str]:
    """How the executions stand, the oldest first."""
    async with server.database.system(autocommit=True) as tx:
        rows = await tx.fetch("SELECT state FROM work_items WHERE follow_up ORDER BY created_at, item_id")
    return [row["state"] for row in rows]


@asynccontextmanager
async def firer(url: str, clock: Clock) -> AsyncIterator[Firer]:
    """A server with connections of its own."""
    database = await Database.connect(url, pool_size=2, system_pool_size=4, connect_timeout=timedelta(seconds=30))
    notifier = Notifier(database)
    pools = Pools(PoolSettings())
    kinds = Kinds([Steered()])
    log = EventLog(database, PostgresBus(Listener(database)))
    filling = Filling(kinds, Templates(pools.cpu))
    embedder = LocalEmbedder(HashingEncoder(), pools.cpu)
    queue, audit = WorkQueue(notifier), AuditLog(database)
    services = TaskServices(
        database, log, queue, audit, kinds, filling, embedder, _NoSessions(), reports_of(database), clock
    )
    try:
        yield Firer(database, services, Tasks(services), Firing(services, clock=clock))
    finally:
        await notifier.close()
        await pools.close(timedelta(0))
        await database.close()


class _NoSessions:
    """Nothing here runs in a session."""

    async def end(self, tx: Transaction, caller: Caller, session_id: UUID, reason: str) -> None:
        """Tell that it was wanted."""
        raise AssertionError(f"{session_id} was to be ended: {reason}")

    async def stop_turn(self, tx: Transaction, caller: Caller, session_id: UUID, turn_id: UUID, reason: str) -> None:
        """Tell that it was wanted."""
        raise AssertionError(f"{turn_id} of {session_id} was to be stopped: {reason}")
