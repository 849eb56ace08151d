"""Quotas as administrators see and set them: the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    InvalidArgument,
    NotFound,
    require_etag,
)
from stationmaster_server.identity import key_store, quota_store, store
from stationmaster_server.identity.auditing import AuditWriter
from stationmaster_server.identity.excess import subject_name
from stationmaster_server.identity.model import AuditEntry, Caller, Category, Quota, Role, Usage, rank
from stationmaster_server.identity.roles import insufficient, operates, require_administrator


class QuotaSettings:
    """Reads and sets the quotas of users and organizations."""

    def __init__(self, database: Database, audit: AuditWriter) -> None:
        self._database = database
        self._audit = audit

    async def get(self, caller: Caller, subject_id: UUID, *, of_organization: bool) -> Quota:
        """The quota of a user or organization; one without limits if none was set."""
        home = await self._home(caller, subject_id, of_organization)
        async with self._read(caller, home) as tx:
            await self._role(tx, home, subject_id, of_organization)
            return (await quota_store.get_quotas(tx, home, [subject_id])).get(subject_id, Quota(subject_id))

    async def usage(self, caller: Caller, subject_id: UUID, *, of_organization: bool) -> Usage:
        """What a user or organization uses."""
        home = await self._home(caller, subject_id, of_organization)
        async with self._read(caller, home) as tx:
            await self._role(tx, home, subject_id, of_organization)
            return await quota_store.get_usage(tx, home, subject_id)

    async def set(
        self,
        caller: Caller,
        subject_id: UUID,
        changes: Mapping[str, Any],
        etag: str = "",
        *,
        of_organization: bool,
        validate_only: bool = False,
    ) -> Quota:
        """Set fields of a quota; None takes a limit away. Every server goes by it within a second.

        Aborted when `etag` is given and not the current one. `validate_only` checks everything and changes nothing.
        """
        home = await self._home(caller, subject_id, of_organization)
        async with self._change(caller, home) as tx:
            key = None if validate_only else caller.request_key
            if (first := await recall(tx, caller.tenant, key, Quota)) is not None:
                return first
            role = await self._role(tx, home, subject_id, of_organization)
            _check_role(caller, role)
            if not of_organization and changes.get("max_users") is not None:
                raise InvalidArgument.field("quota.max_users", "is a quota of organizations only")
            quota = await quota_store.lock_quota(tx, home, subject_id)
            require_etag(f"{subject_name(subject_id, home)}/quota", str(quota.revision), etag)
            wanted = replace(quota, **dict(changes))
            if validate_only:
                return wanted
            quota = await quota_store.put_quota(tx, home, wanted)
            await self._wrote(tx, caller, home, quota)
            await remember(tx, caller.tenant, key, quota)
        return quota

    async def _wrote(self, tx: Transaction, caller: Caller, home: UUID, quota: Quota) -> None:
        limits: dict[str, Any] = {name: getattr(quota, name) for name in quota.__slots__ if name.startswith("max_")}
        if quota.max_running_time_per_day is not None:
            limits["max_running_time_per_day"] = quota.max_running_time_per_day.total_seconds()
        resource = f"{subject_name(quota.subject_id, home)}/quota"
        entry = AuditEntry("quota.set", resource, category=Category.SECURITY, details=limits)
        await self._audit.write(tx, caller, entry, organization_id=home)
        await key_store.notify(tx, f"quota:{quota.subject_id}")

    async def _home(self, caller: Caller, subject_id: UUID, of_organization: bool) -> UUID:
        """The organization of a quota; the caller's, where what follows finds nothing, unless it operates."""
        own = caller.tenant.organization_id
        if not operates(caller) or subject_id in (own, caller.tenant.user_id):
            return own
        if of_organization:
            return subject_id
        async with self._database.system(autocommit=True) as tx:
            return await store.organization_of_user(tx, subject_id) or own

    async def _role(self, tx: Transaction, home: UUID, subject_id: UUID, of_organization: bool) -> Role:
        """The role that a quota stands for: the user's, or OWNER for organizations; NotFound without a subject."""
        if of_organization:
            if subject_id == home and await store.get_organization(tx, home) is not None:
                return Role.OWNER
            raise NotFound("Quota", f"organizations/{subject_id}/quota")
        user = await store.get_user(tx, home, subject_id)
        if user is None:
            raise NotFound("Quota", f"users/{subject_id}/quota")
        return user.role

    def _read(self, caller: Caller, home: UUID) -> Transaction:
        if home == caller.tenant.organization_id:
            return self._database.tenant(caller.tenant, read=True)
        return self._database.system(autocommit=True)

    def _change(self, caller: Caller, home: UUID) -> Transaction:
        if home == caller.tenant.organization_id:
            return self._database.tenant(caller.tenant)
        return self._database.system()


def _check_role(caller: Caller, role: Role) -> None:
    require_administrator(caller, "set quotas")
    if role is Role.OWNER and rank(caller.role) < rank(Role.OWNER) and not operates(caller):
        raise insufficient(f"quotas of owners and organizations are set by owners; your role is {caller.role.name}")
