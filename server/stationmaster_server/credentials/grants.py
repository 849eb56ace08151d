"""Grants: who else may have a value, for what, and until when."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials import grant_store, values
from stationmaster_server.credentials.model import Grant
from stationmaster_server.credentials.rights import managed, manages, principals_of, seen
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    Reason,
    ResourceExhausted,
)
from stationmaster_server.identity import key_store
from stationmaster_server.identity import store as users
from stationmaster_server.identity.model import AuditEntry, Category

MOST_GRANTS = 500
_PRINCIPAL = re.compile(r"(users|apiKeys)/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|agents/[a-z][a-z0-9-]{0,62}")
AgentExists = Callable[[Transaction, UUID, str], Awaitable[bool]]
"""Whether an organization has an agent of this id: agents stand above credentials."""


@dataclass(frozen=True, slots=True)
class _Revoked:
    """What is remembered of a grant that was taken back."""

    grant_id: UUID


class Grants:
    """The grants of an organization's credentials."""

    def __init__(self, database: Database, audit: AuditLog, agent_exists: AgentExists) -> None:
        self._database = database
        self._audit = audit
        self._agent_exists = agent_exists

    async def grant(self, caller: Caller, credential_id: str, new: Grant) -> Grant:
        """Let somebody have the value.

        Raises NotFound, AlreadyExists, PermissionDenied, InvalidArgument, FailedPrecondition(CREDENTIAL_UNUSABLE),
        ResourceExhausted(LIMIT_REACHED).
        """
        tenant = caller.tenant
        values.check_end(new.expires_at, "grant.expire_time")
        new = replace(new, id=new_id(), creator_id=tenant.user_id)
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Grant)
            if again is not None:
                return again
            credential = await managed(tx, caller, credential_id)
            await self._require_principal(tx, tenant.organization_id, new.principal)
            if await grant_store.count(tx, tenant.organization_id, credential.uid) >= MOST_GRANTS:
                text = f"{credential.name} has {MOST_GRANTS} grants: revoke some first"
                raise ResourceExhausted.too_many(credential.name, text)
            if (same := await grant_store.find_equal(tx, tenant.organization_id, credential, new)) is not None:
                raise AlreadyExists("CredentialGrant", same)
            made = await grant_store.insert(tx, tenant.organization_id, credential, new)
            details = {
                "principal": made.principal,
                "purposes": list(made.purposes),
                "until": str(made.expires_at or ""),
            }
            entry = AuditEntry("credential.grant", made.name, category=Category.SECURITY, details=details)
            await self._audit.write(tx, caller, entry)
            await remember(tx, tenant, caller.request_key, made)
            return made

    async def revoke(self, caller: Caller, credential_id: str, grant_id: UUID) -> None:
        """Take a grant back. Raises NotFound, PermissionDenied, FailedPrecondition(CREDENTIAL_UNUSABLE)."""
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            if await recall(tx, tenant, caller.request_key, _Revoked) is not None:
                return
            credential = await managed(tx, caller, credential_id)
            gone = await grant_store.delete(tx, tenant.organization_id, credential, grant_id)
            if gone is None:
                raise NotFound("CredentialGrant", f"{credential.name}/grants/{grant_id}")
            details = {"principal": gone.principal}
            entry = AuditEntry("credential.revoke", gone.name, category=Category.SECURITY, details=details)
            await self._audit.write(tx, caller, entry)
            await remember(tx, tenant, caller.request_key, _Revoked(grant_id))

    async def list(
        self, caller: Caller, credential_id: str, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[Grant]:
        """A page of grants: all for those who manage the credential, else the caller's own. Raises NotFound."""
        clause = grant_store.LISTING.sql(filter_text, order_by, page, start=4)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            credential = await seen(tx, caller, credential_id)
            own = None if manages(caller, credential) else principals_of(caller)
            return await grant_store.list_grants(tx, caller.tenant.organization_id, credential, own, clause)

    async def _require_principal(self, tx: Transaction, organization_id: UUID, principal: str) -> None:
        """Raises NotFound unless the organization has such a user, key or agent."""
        if _PRINCIPAL.fullmatch(principal) is None:
            text = "must be users/{user}, apiKeys/{key} or agents/{agent}"
            raise InvalidArgument.field("grant.principal", text, Reason.INVALID_NAME)
        collection, _, of = principal.partition("/")
        match collection:
            case "users":
                there, kind = await users.get_user(tx, organization_id, UUID(of)) is not None, "User"
            case "apiKeys":
                key = await key_store.get_key(tx, organization_id, UUID(of))
                there, kind = key is not None and key.revoked_at is None, "ApiKey"
            case _:
                there, kind = await self._agent_exists(tx, organization_id, of), "Agent"
        if not there:
            raise NotFound(kind, principal)


async def revoke_all(tx: Transaction, audit: AuditLog, caller: Caller, principal: str) -> None:
    """Take back all that a principal was granted, in the transaction that ends it: its name may come again."""
    gone = await grant_store.delete_of(tx, caller.tenant.organization_id, principal)
    entries = [
        (caller, AuditEntry("credential.revoke", name, category=Category.SECURITY, details={"principal": principal}))
        for name in gone
    ]
    if entries:
        await audit.write_many(tx, entries)
