"""Queues and workers on one database: each pair is one server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest_asyncio
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.work.model import NewWork, Outcome, State, Succeeded, WorkItem
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.run import Handler, Run
from stationmaster_server.work.worker import Worker, WorkerSettings

LIMIT = 20.0
NOTHING_BY_ITSELF = WorkerSettings(poll=timedelta(seconds=60), reap=timedelta(seconds=60))
QUICK = WorkerSettings(
    lease=timedelta(milliseconds=600), poll=timedelta(milliseconds=50), reap=timedelta(milliseconds=50)
)


class Server:
    """A queue, and a worker when it was given handlers."""

    def __init__(self, database: Database, tenant: Tenant, queue: WorkQueue, worker: Worker | None) -> None:
        self.database = database
        self.tenant = tenant
        self.queue = queue
        self.worker = worker

    def new(self, kind: str = "noop", **fields: Any) -> NewWork:
        """Work of the tenant."""
        return replace(NewWork(self.tenant.organization_id, self.tenant.user_id, kind, new_id()), **fields)

    async def submit(self, kind: str = "noop", *, claim_here: bool = False, **fields: Any) -> WorkItem:
        """Submit in a transaction of its own."""
        async with self.database.system() as tx:
            return await self.queue.submit(tx, self.new(kind, **fields), claim_here=claim_here)

    async def get(self, item_id: UUID) -> WorkItem:
        """An item as it is now."""
        async with self.database.system(autocommit=True) as tx:
            return await self.queue.get(tx, self.tenant.organization_id, item_id)

    async def call(self, method: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """A method of the queue, of the organization, in a transaction of its own."""
        async with self.database.system() as tx:
            return await method(tx, self.tenant.organization_id, *args, **kwargs)

    async def reaches(self, item_id: UUID, *states: State, limit: float = LIMIT) -> WorkItem:
        """Wait until an item is in one of the states."""
        async with asyncio.timeout(limit):
            while (item := await self.get(item_id)).state not in states:  # noqa: ASYNC110 - it is in the database
                await asyncio.sleep(0.01)
        return item


async def eventually(condition: Callable[[], bool], limit: float = LIMIT) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - whoever makes it true does not know of this test
            await asyncio.sleep(0.005)


StartServer = Callable[..., Awaitable[Server]]


@pytest_asyncio.fixture
async def start_server(database: Database, tenant: Tenant) -> AsyncIterator[StartServer]:
    """Start another server; it stops with the test, handing back at once what it runs."""
    async with AsyncExitStack() as stack:

        async def start(
            handlers: Mapping[str, Handler] | None = None,
            settings: WorkerSettings = QUICK,
            *,
            listens: bool = False,
            **queue: Any,
        ) -> Server:
            notifier = Notifier(database)
            stack.push_async_callback(notifier.close)
            work_queue = WorkQueue(notifier, **queue)
            if handlers is None:
                return Server(database, tenant, work_queue, None)
            listener = Listener(database) if listens else None
            worker = Worker(database, work_queue, handlers, settings, listener=listener)
            if listener is not None:
                await listener.start()
                stack.push_async_callback(listener.stop)
            worker.start()
            stack.push_async_callback(worker.stop, timedelta(0))
            return Server(database, tenant, work_queue, worker)

        yield start


@pytest_asyncio.fixture
async def idle(start_server: StartServer) -> Server:
    """A server without a worker: tests claim for it."""
    return await start_server()


async def noop(run: Run) -> Outcome:
    """Succeeds at once."""
    return Succeeded()


class Gate:
    """A handler that tells that it has begun and ends when it is told to."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.runs: list[Run] = []
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.outcome = outcome or Succeeded()

    async def __call__(self, run: Run) -> Outcome:
        self.runs.append(run)
        self.begun.set()
        await self.open.wait()
        return self.outcome
