"""Servers of the event log on one database, and a stream to write to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import pytest_asyncio
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.events.bus import PostgresBus
from stationmaster_server.events.log import EventLog, LogSettings

StartLog = Callable[..., Awaitable[EventLog]]


@pytest_asyncio.fixture
async def start_log(database: Database) -> AsyncIterator[StartLog]:
    """Start another server's event log; `hears` False: no notification ever reaches it."""
    async with AsyncExitStack() as stack:

        async def start(
            settings: LogSettings | None = None, *, hears: bool = True, on: Database | None = None
        ) -> EventLog:
            listener = Listener(on or database)
            log = EventLog(on or database, PostgresBus(listener), settings)
            if hears:
                await listener.start()
                stack.push_async_callback(listener.stop)
            await log.start()
            stack.push_async_callback(log.close)
            return log

        yield start


@pytest_asyncio.fixture
async def log(start_log: StartLog) -> EventLog:
    """One server's event log, whose periodic look comes too late to help."""
    return await start_log(LogSettings(look=timedelta(seconds=60)))


@pytest_asyncio.fixture
async def stream(database: Database, log: EventLog, tenant: Tenant) -> UUID:
    """A stream of the tenant; nobody holds its fence."""
    return await make_stream(database, log, tenant)


@pytest_asyncio.fixture
async def fence(database: Database, log: EventLog, tenant: Tenant, stream: UUID) -> UUID:
    """The fence under which `stream` is written."""
    token = new_id()
    async with database.system() as tx:
        await log.set_fence(tx, tenant.organization_id, stream, token)
    return token


async def make_stream(database: Database, log: EventLog, tenant: Tenant, fence: UUID | None = None) -> UUID:
    """Another stream of the tenant."""
    stream = new_id()
    async with database.system() as tx:
        await log.create_stream(tx, tenant.organization_id, stream)
        await log.set_fence(tx, tenant.organization_id, stream, fence)
    return stream
