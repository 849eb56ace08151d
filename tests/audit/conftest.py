"""A trail on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest_asyncio
from stationmaster_server.audit.service import AuditLog, AuditTrail
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.identity.model import ROLE_SCOPES, AuditEntry, Caller, Role

from tests.fixtures.database import make_tenant


@dataclass
class Server:
    """One server process, as far as the trail goes."""

    database: Database
    listener: Listener
    log: AuditLog
    trail: AuditTrail

    async def change(self, caller: Caller, action: str = "thing.change") -> None:
        """A change with its event."""
        async with self.database.tenant(caller.tenant) as tx:
            await self.log.write(tx, caller, AuditEntry(action, "things/1"))


@asynccontextmanager
async def running(database: Database, keepalive: timedelta = timedelta(seconds=15)) -> AsyncIterator[Server]:
    """A server while the body runs."""
    listener = Listener(database)
    log, trail = AuditLog(database), AuditTrail(database, listener, keepalive=keepalive)
    async with AsyncExitStack() as stack:
        await log.start()
        stack.push_async_callback(log.close)
        await trail.start()
        stack.push_async_callback(trail.close)
        await listener.start()
        stack.push_async_callback(listener.stop)
        yield Server(database, listener, log, trail)


@pytest_asyncio.fixture
async def server(database: Database) -> AsyncIterator[Server]:
    """A server."""
    async with running(database) as server:
        yield server


def make_caller(tenant: Tenant, role: Role = Role.OWNER) -> Caller:
    """A caller of a tenant."""
    scopes = ROLE_SCOPES[role]
    return Caller(tenant, role, scopes, None, "api_key:tests", "a-request", "ipv4:127.0.0.1:1", "/tests/Test")


@pytest_asyncio.fixture
async def caller(tenant: Tenant) -> Caller:
    """Somebody whose organization has a trail."""
    return make_caller(tenant)


@pytest_asyncio.fixture
async def stranger(database: Database) -> Caller:
    """Somebody of another organization."""
    return make_caller(await make_tenant(database))
