"""Identity's own parts on a real database, as the composition root puts them together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest_asyncio
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.identity.authentication import Authenticator
from stationmaster_server.identity.keys import ApiKeys, CreatedKey, NewKey
from stationmaster_server.identity.model import (
    PLATFORM_SCOPE,
    ROLE_SCOPES,
    Caller,
    Quota,
    Role,
    User,
)
from stationmaster_server.identity.quota_settings import QuotaSettings
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.identity.service import IdentityService, NewUser
from stationmaster_server.identity.tokens import Issuer
from stationmaster_server.resilience.outbound import Outbound

from tests.fixtures.database import make_tenant


@dataclass
class Server:
    """One server process, as far as identity goes."""

    database: Database
    listener: Listener
    audit: AuditLog
    quotas: Quotas
    authenticator: Authenticator
    users: IdentityService
    keys: ApiKeys
    settings: QuotaSettings

    async def create_user(self, caller: Caller, role: Role, **fields: str) -> User:
        """A user of the caller's organization."""
        return await self.users.create_user(caller, NewUser(display_name=role.name, role=role, **fields))

    async def create_key(self, caller: Caller, user: User | None = None, *scopes: str) -> CreatedKey:
        """A key of the user, or of the caller."""
        return await self.keys.create(caller, NewKey(user_id=user.id if user else None, scopes=scopes))

    async def set_quota(self, caller: Caller, *, organization: bool = False, **limits: Any) -> Quota:
        """Set limits of the caller, or of its organization, and go by them at once."""
        tenant = caller.tenant
        subject = tenant.organization_id if organization else tenant.user_id
        quota = await self.settings.set(caller, subject, limits, of_organization=organization)
        self.quotas.forget()
        return quota


@pytest_asyncio.fixture
async def servers(database: Database) -> AsyncIterator[AsyncExitStack]:
    """What is started in a test, and ends with it, before its database does."""
    async with AsyncExitStack() as stack:
        yield stack


async def start_server(
    stack: AsyncExitStack, database: Database, *issuers: Issuer, certificates: bool = False
) -> Server:
    """One more server on the database."""
    listener = Listener(database)
    audit = AuditLog(database)
    quotas = Quotas(database, listener, audit)
    authenticator = Authenticator(database, listener, audit, issuers, certificates=certificates)
    await audit.start()
    stack.push_async_callback(audit.close)
    await authenticator.start()
    stack.push_async_callback(authenticator.close)
    await listener.start()
    stack.push_async_callback(listener.stop)
    return Server(
        database,
        listener,
        audit,
        quotas,
        authenticator,
        IdentityService(database, audit, quotas, Outbound()),
        ApiKeys(database, audit),
        QuotaSettings(database, audit),
    )


@pytest_asyncio.fixture
async def server(servers: AsyncExitStack, database: Database) -> Server:
    """A server."""
    return await start_server(servers, database)


def make_caller(tenant: Tenant, role: Role = Role.OWNER, *scopes: str) -> Caller:
    """A caller of a role, with that role's scopes unless others are named."""
    return Caller(
        tenant=tenant,
        role=role,
        scopes=frozenset(scopes) or ROLE_SCOPES[role],
        key_id=None,
        subject="api_key:tests",
        request_id="a-request",
        peer="ipv4:127.0.0.1:1",
        method="/stationmaster.v1.Tests/Test",
    )


def as_user(user: User, *scopes: str) -> Caller:
    """A caller that is this user."""
    return make_caller(Tenant(user.organization_id, user.id), user.role, *scopes)


@pytest_asyncio.fixture
async def owner(tenant: Tenant) -> Caller:
    """The owner of an organization."""
    return make_caller(tenant)


@pytest_asyncio.fixture
async def stranger(database: Database) -> Caller:
    """The owner of another organization."""
    return make_caller(await make_tenant(database))


@pytest_asyncio.fixture
async def operator(database: Database) -> Caller:
    """Who operates the installation, from an organization of its own."""
    return make_caller(await make_tenant(database), Role.OWNER, "*", PLATFORM_SCOPE)
