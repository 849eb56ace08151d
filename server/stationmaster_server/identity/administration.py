"""Keys by hand, for whoever has the database: what `stationmaster-server keys` does."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import NotFound
from stationmaster_server.identity import key_store, store
from stationmaster_server.identity.auditing import AuditWriter
from stationmaster_server.identity.bootstrap import OPERATOR_SCOPES, first_key
from stationmaster_server.identity.keys import CreatedKey, NewKey, insert_key, require_known, revoke_key
from stationmaster_server.identity.model import ApiKey, AuditEntry, Category, User
from stationmaster_server.identity.system import system_caller


async def create_key(
    database: Database, audit: AuditWriter, new: NewKey, organization_id: UUID | None = None
) -> CreatedKey:
    """A new key of a user, by default of the oldest owner (of that organization); NotFound when there is none such.

    Its scopes may hold `organizations.admin`: it then operates the installation, as the first key of all does unless
    it is given others; with that the organization `local` and its owner are made.
    """
    require_known(new.scopes)
    async with database.system() as tx:
        if new.user_id is None and organization_id is None:
            first = replace(new, scopes=new.scopes or OPERATOR_SCOPES)
            if (made := await first_key(tx, first, audit)) is not None:
                return made
        user = await _user(tx, new.user_id, organization_id)
        key, secret = await insert_key(tx, user, new)
        details = {"user": f"users/{user.id}", "prefix": key.prefix, "scopes": list(key.scopes)}
        entry = AuditEntry("apiKey.create", f"apiKeys/{key.id}", category=Category.SECURITY, details=details)
        await audit.write(tx, system_caller(user.organization_id, user.id), entry)
    return CreatedKey(key, secret)


async def list_keys(database: Database) -> list[ApiKey]:
    """The keys of every organization, oldest first."""
    async with database.system(autocommit=True) as tx:
        return await key_store.all_keys(tx)


async def revoke(database: Database, audit: AuditWriter, key_id: UUID) -> ApiKey:
    """Revoke a key of any organization, for good."""
    async with database.system() as tx:
        organization_id = await key_store.organization_of_key(tx, key_id)
        key = await key_store.get_key(tx, organization_id, key_id) if organization_id else None
        if key is None:
            raise NotFound("ApiKey", f"apiKeys/{key_id}")
        if key.revoked_at is not None:
            return key
        return await revoke_key(tx, audit, system_caller(key.organization_id, key.user_id), key)


async def _user(tx: Transaction, user_id: UUID | None, organization_id: UUID | None) -> User:
    if user_id is not None:
        user, name = await store.find_user(tx, user_id), f"users/{user_id}"
    else:
        user = await store.oldest_owner(tx, organization_id)
        name = "users/-" if organization_id is None else f"an owner of organizations/{organization_id}"
    if user is None:
        raise NotFound("User", name)
    return user
