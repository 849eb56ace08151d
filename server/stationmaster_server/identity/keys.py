"""API keys: the rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument, NotFound
from stationmaster_server.identity import key_store, store
from stationmaster_server.identity.auditing import AuditWriter
from stationmaster_server.identity.model import (
    KNOWN_SCOPES,
    ApiKey,
    AuditEntry,
    Caller,
    Category,
    User,
    unknown_scopes,
)
from stationmaster_server.identity.roles import administers, is_self, operates, require_above, require_key
from stationmaster_server.identity.secrets import make_secret

KEYS = Listing(
    {
        "display_name": Field("k.display_name", str),
        "user": Field("('users/' || k.user_id)", str),
        "revoked": Field("(k.revoked_at IS NOT NULL)", bool),
        "create_time": Field("k.created_at", datetime),
        "expire_time": Field("coalesce(k.expires_at, '9999-01-01Z'::timestamptz)", datetime),
    },
    key="k.id",
    default_order="create_time desc",
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is made of; without a user it is the caller's own."""

    user_id: UUID | None = None
    display_name: str = ""
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key, and its secret this once: None in the answer to a repeated request."""

    key: ApiKey
    secret: str | None = field(repr=False)


class ApiKeys:
    """The keys of an organization's users."""

    def __init__(self, database: Database, audit: AuditWriter) -> None:
        self._database = database
        self._audit = audit

    async def create(self, caller: Caller, new: NewKey) -> CreatedKey:
        """A new key, that can do no more than its user and no more than its creator."""
        user_id = new.user_id or caller.tenant.user_id
        home = await self._home(caller, user_id)
        async with self._change(caller, home) as tx:
            # The secret is not remembered: what request_ids keeps is the key alone.
            if (first := await recall(tx, caller.tenant, caller.request_key, ApiKey)) is not None:
                return CreatedKey(first, None)
            if new.expires_at is not None and new.expires_at <= datetime.now(UTC):
                raise InvalidArgument.field("api_key.expire_time", "must lie in the future")
            require_known(new.scopes)
            user = await store.get_user(tx, home, user_id)
            if user is None or not (administers(caller) or is_self(caller, user_id)):
                raise NotFound("User", f"users/{user_id}")
            require_key(caller, user.role, frozenset(new.scopes))
            key, secret = await insert_key(tx, user, new)
            details = {"user": f"users/{user.id}", "prefix": key.prefix, "scopes": list(key.scopes)}
            entry = AuditEntry("apiKey.create", f"apiKeys/{key.id}", category=Category.SECURITY, details=details)
            await self._audit.write(tx, caller, entry, organization_id=home)
            await remember(tx, caller.tenant, caller.request_key, key)
        return CreatedKey(key, secret)

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[ApiKey]:
        """A page of the organization's keys; of their own for those who do not administer it."""
        clause = KEYS.sql(filter_text, order_by, page, start=3)
        tenant = caller.tenant
        async with self._database.tenant(tenant, read=True) as tx:
            user_id = None if administers(caller) else tenant.user_id
            return await key_store.list_keys(tx, tenant.organization_id, user_id, clause)

    async def revoke(self, caller: Caller, key_id: UUID) -> ApiKey:
        """Revoke a key, for good; every server refuses it within a second."""
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant) as tx:
            if (first := await recall(tx, caller.tenant, caller.request_key, ApiKey)) is not None:
                return first
            key = await key_store.get_key(tx, organization_id, key_id)
            if key is None or not (administers(caller) or is_self(caller, key.user_id)):
                raise NotFound("ApiKey", f"apiKeys/{key_id}")
            user = await store.get_user(tx, organization_id, key.user_id)
            if user is not None and not is_self(caller, user.id):
                require_above(caller, user.role, "revoke a key of a user")
            tx.audited = key.revoked_at is not None  # revoked already: nothing to tell
            if key.revoked_at is None:
                key = await revoke_key(tx, self._audit, caller, key)
            await remember(tx, caller.tenant, caller.request_key, key)
        return key

    async def _home(self, caller: Caller, user_id: UUID) -> UUID:
        """The organization of the user whose key it will be: the caller's, unless an operator names another's user."""
        if not operates(caller) or is_self(caller, user_id):
            return caller.tenant.organization_id
        async with self._database.system(autocommit=True) as tx:
            return await store.organization_of_user(tx, user_id) or caller.tenant.organization_id

    def _change(self, caller: Caller, home: UUID) -> Transaction:
        if home == caller.tenant.organization_id:
            return self._database.tenant(caller.tenant)
        return self._database.system()


async def insert_key(tx: Transaction, user: User, new: NewKey) -> tuple[ApiKey, str]:
    """Write a new key of a user; returns it with its secret."""
    secret = make_secret()
    key = ApiKey(
        id=new_id(),
        organization_id=user.organization_id,
        user_id=user.id,
        display_name=new.display_name,
        prefix=secret.prefix,
        scopes=_sorted(new.scopes),
        expires_at=new.expires_at,
        revoked_at=None,
        last_used_at=None,
        created_at=datetime.now(UTC),
    )
    return await key_store.insert_key(tx, key, secret.hash), secret.text


async def revoke_key(tx: Transaction, audit: AuditWriter, caller: Caller, key: ApiKey) -> ApiKey:
    """Write that a key is revoked, and tell every server."""
    revoked = await key_store.revoke_key(tx, key.organization_id, key.id)
    if revoked is None:
        raise NotFound("ApiKey", f"apiKeys/{key.id}")
    details = {"user": f"users/{key.user_id}", "prefix": key.prefix}
    entry = AuditEntry("apiKey.revoke", f"apiKeys/{key.id}", category=Category.SECURITY, details=details)
    await audit.write(tx, caller, entry, organization_id=key.organization_id)
    await key_store.notify(tx, f"key:{key.prefix}")
    return revoked


def require_known(scopes: Iterable[str]) -> None:
    """Raises InvalidArgument for scopes that would allow nothing."""
    if unknown := unknown_scopes(scopes):
        known = ", ".join(sorted(KNOWN_SCOPES))
        raise InvalidArgument.field(
            "api_key.scopes", f"{', '.join(unknown)} would allow nothing; there are: {known}, area.* and *"
        )


def _sorted(scopes: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(scopes)))
