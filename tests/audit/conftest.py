"""A trail on a real database."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest_asyncio
from stationmaster_server.audit.checkpoints import Signer
from stationmaster_server.audit.counting import Counting
from stationmaster_server.audit.exporting import Exporting
from stationmaster_server.audit.log_keys import LogKeys
from stationmaster_server.audit.proofs import Proofs
from stationmaster_server.audit.recording import Recording
from stationmaster_server.audit.service import AuditLog, AuditTrail
from stationmaster_server.audit.servicer import AuditServicer
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.identity.model import ROLE_SCOPES, AuditEntry, Caller, Role
from stationmaster_server.wire.paging import PageTokens

from tests.fixtures.database import make_tenant

KEY = b64encode(bytes(range(32))).decode()
"""The key that checkpoints of tests are signed with."""


@dataclass
class Server:
    """One server process, as far as the trail goes."""

    database: Database
    listener: Listener
    log: AuditLog
    trail: AuditTrail
    signer: Signer

    @property
    def servicer(self) -> AuditServicer:
        """Its AuditService."""
        return AuditServicer(
            self.trail,
            Recording(self.database, self.log),
            Proofs(self.database),
            Exporting(self.database, self.log),
            Counting(self.database),
            PageTokens(b"secret"),
        )

    async def change(self, caller: Caller, action: str = "thing.change") -> None:
        """A change with its event."""
        async with self.database.tenant(caller.tenant) as tx:
            await self.log.write(tx, caller, AuditEntry(action, "things/1"))


@asynccontextmanager
async def running(
    database: Database, keepalive: timedelta = timedelta(seconds=15), *, keys: str = KEY
) -> AsyncIterator[Server]:
    """A server while the body runs."""
    listener = Listener(database)
    log, trail = AuditLog(database), AuditTrail(database, listener, keepalive=keepalive)
    signer = Signer(database, LogKeys(database, configured=keys), every=timedelta(milliseconds=100))
    async with AsyncExitStack() as stack:
        await log.start()
        stack.push_async_callback(log.close)
        await trail.start()
        stack.push_async_callback(trail.close)
        await signer.start()
        stack.push_async_callback(signer.close)
        await listener.start()
        stack.push_async_callback(listener.stop)
        yield Server(database, listener, log, trail, signer)


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
