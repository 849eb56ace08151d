"""Organizations and users: the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument, NotFound, require_etag
from stationmaster_server.identity import key_store, store
from stationmaster_server.identity.auditing import AuditWriter
from stationmaster_server.identity.model import ApiKey, AuditEntry, Caller, Category, Organization, Role, User, Webhook
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.identity.roles import (
    administers,
    insufficient,
    is_self,
    operates,
    require_above,
    require_administrator,
    require_operator,
)
from stationmaster_server.resilience.outbound import Outbound

ORGANIZATIONS = Listing(
    {"display_name": Field("o.display_name", str), "create_time": Field("o.created_at", datetime)},
    key="o.organization_id",
    default_order="create_time desc",
)
USERS = Listing(
    {
        "display_name": Field("u.display_name", str),
        "email": Field("u.email", str),
        "role": Field("u.role", Role),
        "disabled": Field("(u.disabled_at IS NOT NULL)", bool),
        "create_time": Field("u.created_at", datetime),
    },
    key="u.id",
    default_order="create_time desc",
)
_OWN_FIELDS = frozenset({"display_name", "email"})


@dataclass(frozen=True, slots=True)
class NewUser:
    """What a user is made of."""

    display_name: str
    role: Role
    email: str = ""
    external_subject: str = ""


@dataclass(frozen=True, slots=True)
class WhoIAm:
    """A caller as it sees itself."""

    user: User
    organization: Organization
    api_key: ApiKey | None


class IdentityService:
    """Organizations and their users."""

    def __init__(self, database: Database, audit: AuditWriter, quotas: Quotas, outbound: Outbound) -> None:
        self._database = database
        self._audit = audit
        self._quotas = quotas
        self._outbound = outbound

    async def who_am_i(self, caller: Caller) -> WhoIAm:
        """The caller's user, organization and key."""
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant, read=True) as tx:
            user = await store.get_user(tx, organization_id, caller.tenant.user_id)
            organization = await store.get_organization(tx, organization_id)
            key = await key_store.get_key(tx, organization_id, caller.key_id) if caller.key_id else None
        if user is None or organization is None:
            raise _no_user(caller.tenant.user_id)
        return WhoIAm(user, organization, key)

    async def create_organization(
        self, caller: Caller, display_name: str, owner_display_name: str, owner_email: str
    ) -> Organization:
        """A new organization with its first user, an owner. For operators."""
        require_operator(caller, "create organizations")
        organization_id = new_id()
        owner = _user(organization_id, NewUser(owner_display_name, Role.OWNER, owner_email))
        async with self._database.system() as tx:
            if (first := await recall(tx, caller.tenant, caller.request_key, Organization)) is not None:
                return first
            organization = await store.insert_organization(tx, organization_id, display_name)
            await store.insert_user(tx, owner)
            details = {"display_name": display_name, "owner": f"users/{owner.id}"}
            entry = _entry("organization.create", f"organizations/{organization_id}", details)
            await self._tell(tx, caller, entry, organization_id)
            await remember(tx, caller.tenant, caller.request_key, organization)
        return organization

    async def get_organization(self, caller: Caller, organization_id: UUID) -> Organization:
        """The caller's organization, or any for operators."""
        found = None
        if operates(caller):
            async with self._database.system(autocommit=True) as tx:
                found = await store.get_organization(tx, organization_id)
        else:
            async with self._database.tenant(caller.tenant, read=True) as tx:
                # Somebody else's is asked for as well: row-level security makes it one that does not exist.
                found = await store.get_organization(tx, organization_id)
        if found is None:
            raise NotFound("Organization", f"organizations/{organization_id}")
        return found

    async def update_organization(
        self,
        caller: Caller,
        organization_id: UUID,
        changes: Mapping[str, Any],
        webhook: Webhook | None = None,
        etag: str = "",
    ) -> Organization:
        """Change `display_name` and `tool_policies` of an organization, and its webhook when one is given.

        Aborted when `etag` is given and not the current one; InvalidArgument for a new webhook without a secret;
        FailedPrecondition(ADDRESS_REFUSED) for one to which this server would not go.
        """
        if webhook is not None and webhook.url:
            require_administrator(caller, "change the organization")  # names are looked up for nobody else
            await self._outbound.check(webhook.url)
        async with self._change(caller, organization_id) as tx:
            if (first := await recall(tx, caller.tenant, caller.request_key, Organization)) is not None:
                return first
            require_administrator(caller, "change the organization")
            await store.lock_organization(tx, organization_id)
            organization = await store.get_organization(tx, organization_id)
            if organization is None:
                raise NotFound("Organization", f"organizations/{organization_id}")
            require_etag(f"organizations/{organization_id}", str(organization.revision), etag)
            changed = sorted(name for name, value in changes.items() if getattr(organization, name) != value)
            if webhook is not None and (webhook.secret is not None or webhook.url != organization.webhook_url):
                changed.append("permission_webhook")
            else:
                webhook = None
            tx.audited = not changed  # nothing changed: nothing to tell
            if changed:
                written = await store.update_organization(tx, replace(organization, **changes), webhook)
                if written is None:
                    raise InvalidArgument.field("organization.permission_webhook.secret", "is needed with a first URL")
                organization = written
                entry = _entry("organization.update", f"organizations/{organization_id}", {"changed": changed})
                await self._tell(tx, caller, entry, organization_id)
            await remember(tx, caller.tenant, caller.request_key, organization)
        return organization

    async def list_organizations(
        self, caller: Caller, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[Organization]:
        """The caller's organization, or all for operators."""
        clause = ORGANIZATIONS.sql(filter_text, order_by, page, start=2)
        if operates(caller):
            async with self._database.system(autocommit=True) as tx:
                return await store.list_organizations(tx, None, clause)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await store.list_organizations(tx, caller.tenant.organization_id, clause)

    async def create_user(self, caller: Caller, new: NewUser, organization_id: UUID | None = None) -> User:
        """A new user of the caller's organization, or of one that an operator names."""
        home = organization_id or caller.tenant.organization_id
        require_administrator(caller, "create users")
        require_above(caller, new.role, "create a user")
        async with self._quotas.telling(), self._change(caller, home) as tx:
            if (first := await recall(tx, caller.tenant, caller.request_key, User)) is not None:
                return first
            if await store.get_organization(tx, home) is None:
                raise NotFound("Organization", f"organizations/{home}")
            await self._quotas.add_user(tx, caller, home)
            user = await store.insert_user(tx, _user(home, new))
            details = {"display_name": user.display_name, "role": user.role.name}
            entry = _entry("user.create", f"users/{user.id}", details)
            await self._audit.write(tx, caller, entry, organization_id=home)
            await remember(tx, caller.tenant, caller.request_key, user)
        return user

    async def get_user(self, caller: Caller, user_id: UUID) -> User:
        """A user of the caller's organization."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            user = await store.get_user(tx, caller.tenant.organization_id, user_id)
        if user is None:
            raise _no_user(user_id)
        return user

    async def list_users(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[User]:
        """A page of the users of the caller's organization."""
        clause = USERS.sql(filter_text, order_by, page, start=2)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await store.list_users(tx, caller.tenant.organization_id, clause)

    async def update_user(self, caller: Caller, user_id: UUID, changes: Mapping[str, Any], etag: str = "") -> User:
        """Change fields of a user: `display_name`, `email`, `role`, `external_subject`, `tool_policies`.

        Aborted when `etag` is given and not the current one.
        """
        async with self._database.tenant(caller.tenant) as tx:
            if (first := await recall(tx, caller.tenant, caller.request_key, User)) is not None:
                return first
            user = await self._lock(tx, caller, user_id)
            require_etag(f"users/{user_id}", str(user.revision), etag)
            _check_change(caller, user, changes)
            if changes.get("role", user.role) is not Role.OWNER:
                await self._keep_an_owner(tx, user)
            changed = {name: value for name, value in changes.items() if getattr(user, name) != value}
            tx.audited = not changed  # nothing changed: nothing to tell
            if changed:
                user = await store.update_user(tx, replace(user, **changed))
                await self._wrote(tx, caller, "user.update", user, {"changed": sorted(changed), "role": user.role.name})
            await remember(tx, caller.tenant, caller.request_key, user)
        return user

    async def disable_user(self, caller: Caller, user_id: UUID) -> User:
        """Disable a user, for good: its keys and tokens are refused from then on."""
        async with self._database.tenant(caller.tenant) as tx:
            if (first := await recall(tx, caller.tenant, caller.request_key, User)) is not None:
                return first
            user = await self._lock(tx, caller, user_id)
            require_administrator(caller, "disable users")
            require_above(caller, user.role, "disable a user")
            tx.audited = user.disabled_at is not None  # disabled already: nothing to tell
            if user.disabled_at is None:
                await self._keep_an_owner(tx, user)
                user = await store.update_user(tx, replace(user, disabled_at=datetime.now(UTC)))
                await self._wrote(tx, caller, "user.disable", user, {})
            await remember(tx, caller.tenant, caller.request_key, user)
        return user

    def _change(self, caller: Caller, organization_id: UUID) -> Transaction:
        """A transaction in the caller's organization, or in another one for operators."""
        if organization_id == caller.tenant.organization_id:
            return self._database.tenant(caller.tenant)
        if operates(caller):
            return self._database.system()
        raise NotFound("Organization", f"organizations/{organization_id}")

    async def _tell(self, tx: Transaction, caller: Caller, entry: AuditEntry, organization_id: UUID) -> None:
        """In the caller's trail, and in that of the organization when it is another one."""
        await self._audit.write(tx, caller, entry)
        if organization_id != caller.tenant.organization_id:
            await self._audit.write(tx, caller, entry, organization_id=organization_id)

    async def _lock(self, tx: Transaction, caller: Caller, user_id: UUID) -> User:
        user = await store.lock_user(tx, caller.tenant.organization_id, user_id)
        if user is None:
            raise _no_user(user_id)
        return user

    async def _keep_an_owner(self, tx: Transaction, user: User) -> None:
        """Refuse to lose the last owner, also when two owners turn on each other."""
        if user.role is not Role.OWNER or user.disabled_at is not None:
            return
        await store.lock_organization(tx, user.organization_id)
        if await store.count_owners(tx, user.organization_id) == 1:
            raise insufficient(f"users/{user.id} is the last owner of the organization; make another one first")

    async def _wrote(self, tx: Transaction, caller: Caller, action: str, user: User, details: dict[str, Any]) -> None:
        await self._audit.write(tx, caller, _entry(action, f"users/{user.id}", details))
        await key_store.notify(tx, f"user:{user.id}")


def _check_change(caller: Caller, user: User, changes: Mapping[str, Any]) -> None:
    own = is_self(caller, user.id)
    if not administers(caller) and not (own and changes.keys() <= _OWN_FIELDS):
        require_administrator(caller, "change others, or one's own role, subject or tool policies")
    if not own or not changes.keys() <= _OWN_FIELDS:
        require_above(caller, user.role, "change a user")
    if "role" in changes:
        require_above(caller, changes["role"], "make a user")


def _user(organization_id: UUID, new: NewUser) -> User:
    now = datetime.now(UTC)
    return User(
        new_id(), organization_id, new.display_name, new.email, new.role, new.external_subject, None, 1, now, now
    )


def _entry(action: str, resource: str, details: dict[str, Any]) -> AuditEntry:
    return AuditEntry(action, resource, category=Category.SECURITY, details=details)


def _no_user(user_id: UUID) -> NotFound:
    return NotFound("User", f"users/{user_id}")
