"""The room on a database, without a server: what `app/credentials.py` builds, with keys of the test's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

from stationmaster_server.agents import store as agents
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials.access import Access, Request
from stationmaster_server.credentials.expiry import Expiry
from stationmaster_server.credentials.grants import Grants
from stationmaster_server.credentials.importing import Importing
from stationmaster_server.credentials.key_service import Keys
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import Credential, Label, Labels, Value
from stationmaster_server.credentials.providers.base import KeyProvider
from stationmaster_server.credentials.providers.file import FileKeys
from stationmaster_server.credentials.rewrap import Rewrapper
from stationmaster_server.credentials.service import Credentials, New
from stationmaster_server.credentials.versions import Versions
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import RequestKey, Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity.model import PLATFORM_SCOPE

NOBODY = UUID(int=0)


@dataclass(frozen=True)
class Room:
    """The services of one server."""

    database: Database
    audit: AuditLog
    keyring: Keyring
    credentials: Credentials
    versions: Versions
    access: Access
    grants: Grants
    keys: Keys
    rewrapper: Rewrapper
    expiry: Expiry
    importing: Importing

    async def create(self, caller: Caller, credential_id: str, secret: str = "", **fields: object) -> Credential:
        """A credential with a first version."""
        new = Credential(credential_id, NOBODY, NOBODY, labels=Labels(), **fields)  # type: ignore[arg-type]
        return await self.credentials.create(caller, New(new, Value(secret)))

    async def read(
        self, caller: Caller, credential_id: str, label: Label = Label.CURRENT, *, version: int = 0, purpose: str = ""
    ) -> str:
        """The secret."""
        return (await self.access.access(caller, Request(credential_id, version, label, purpose))).secret

    async def close(self) -> None:
        """End what goes on."""
        await self.keys.close()
        await self.audit.close()


async def make_room(
    database: Database,
    providers: Sequence[KeyProvider],
    *,
    active: str = "",
    variables: Mapping[str, str] | None = None,
    batch: int = 500,
    announce_before: timedelta = timedelta(days=7),
    keep_deleted: timedelta = timedelta(days=30),
) -> Room:
    """The room of one more server on this database."""
    audit = AuditLog(database)
    await audit.start()
    keyring = Keyring(database, providers, active=active)
    await keyring.refresh()
    allowed = dict(variables or {})
    rewrapper = Rewrapper(database, keyring, batch=batch)
    credentials = Credentials(database, audit, keyring, keep_deleted=keep_deleted)
    versions = Versions(database, audit, keyring, grace=timedelta(days=1))
    return Room(
        database,
        audit,
        keyring,
        credentials,
        versions,
        Access(database, audit, keyring, allowed),
        Grants(database, audit, agent_exists),
        Keys(database, audit, keyring, rewrapper, no_other),
        rewrapper,
        Expiry(database, audit, announce_before=announce_before),
        Importing(database, audit, keyring, credentials, versions, allowed),
    )


async def no_other(key_id: str) -> list[str]:
    """Servers that lack a key: there is no other."""
    return []


async def agent_exists(tx: Transaction, organization_id: UUID, agent_id: str) -> bool:
    """As the composition root has it."""
    return await agents.get(tx, organization_id, agent_id) is not None


def file_keys(folder: Path, *, make: bool = True) -> list[KeyProvider]:
    """Keys in a file of the test."""
    return [FileKeys(folder / "credentials.keys", make=make)]


def caller_of(
    tenant: Tenant,
    role: Role = Role.OWNER,
    *,
    key_id: UUID | None = None,
    operator: bool = False,
    request: RequestKey | None = None,
) -> Caller:
    """Somebody who calls."""
    scopes = frozenset({"*", PLATFORM_SCOPE} if operator else {"*"})
    return Caller(tenant, role, scopes, key_id, "api_key:test", str(uuid4()), "test", "/test/Test", request)


async def another_user(database: Database, tenant: Tenant, role: Role = Role.MEMBER) -> Tenant:
    """One more user of the organization."""
    other = Tenant(tenant.organization_id, uuid4())
    async with database.system() as tx:
        await tx.execute(
            "INSERT INTO users (organization_id, id, display_name, role) VALUES ($1, $2, 'Other', $3)",
            other.organization_id,
            other.user_id,
            role.value,
        )
    return other


async def api_key_of(database: Database, user: Tenant) -> UUID:
    """One more API key of a user."""
    key_id = uuid4()
    async with database.system() as tx:
        await tx.execute(
            """INSERT INTO api_keys (organization_id, id, user_id, prefix, secret_hash, scopes)
               VALUES ($1, $2, $3, $4, '\\x00', '{}')""",
            user.organization_id,
            key_id,
            user.user_id,
            key_id.hex[:10],
        )
    return key_id


async def trail(database: Database, tenant: Tenant, action: str) -> list[dict[str, object]]:
    """The audit events of an action, oldest first."""
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch(
            """SELECT outcome, reason, resource, details, actor FROM audit_events
               WHERE organization_id = $1 AND action = $2 ORDER BY created_at, id""",
            tenant.organization_id,
            action,
        )
    return [dict(row) for row in rows]
