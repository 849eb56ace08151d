"""Credentials: the rules of creating, showing, changing and deleting them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials import store, values
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import Credential, Labels, Value
from stationmaster_server.credentials.rights import managed, seen, viewer_of, with_own_fingerprint
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists, ResourceExhausted
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.roles import require_operator

MOST_CREDENTIALS = 10_000


@dataclass(frozen=True, slots=True)
class New:
    """What a credential is made of."""

    credential: Credential
    value: Value


class Credentials:
    """The credentials of an organization."""

    def __init__(self, database: Database, audit: AuditLog, keyring: Keyring, *, keep_deleted: timedelta) -> None:
        self._database = database
        self._audit = audit
        self._keyring = keyring
        self._keep_deleted = keep_deleted

    async def create(self, caller: Caller, new: New, *, validate_only: bool = False) -> Credential:
        """Create a credential that the caller owns, with a first version if there is a value.

        Raises AlreadyExists, InvalidArgument, PermissionDenied, ResourceExhausted(LIMIT_REACHED), Unavailable.
        """
        credential = replace(
            new.credential, uid=new_id(), owner_id=caller.tenant.user_id, etag=new_id().hex, labels=Labels()
        )
        values.check_value(new.value, encrypted=credential.encrypted, needed=False)
        values.check_end(credential.expires_at, "credential.expire_time")
        _require_variable(caller, credential.environment_variable)
        if validate_only:
            await self._require_free(caller, credential)
            now = datetime.now(UTC)
            return replace(credential, created_at=now, updated_at=now)
        self._keyring.require()
        await values.reserve(self._keyring, encrypted=credential.encrypted, count=bool(new.value))
        async with self._database.tenant(caller.tenant) as tx:
            caller = await with_own_fingerprint(tx, self._keyring, caller)
            again = await recall(tx, caller.tenant, caller.request_key, Credential)
            if again is not None:
                return again
            made = await self.insert(tx, caller, credential, new.value)
            details = {"encrypted": made.encrypted, "category": made.category, "version": made.labels.current or 0}
            await self._write_audit(tx, caller, "credential.create", made, details)
            await remember(tx, caller.tenant, caller.request_key, made)
            return made

    async def insert(self, tx: Transaction, caller: Caller, credential: Credential, value: Value) -> Credential:
        """Put a credential with its first version into the database; the keyring has reserved a wrap."""
        organization_id = caller.tenant.organization_id
        await _require_room(tx, organization_id)
        made = await store.insert(tx, organization_id, credential)
        if not value:
            return made
        number = await values.add(tx, self._keyring, caller, made, value)
        return await store.set_labels(tx, organization_id, made.uid, Labels(current=number), made.etag)

    async def get(self, caller: Caller, credential_id: str) -> Credential:
        """One credential that the caller sees, without its secret. Raises NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await seen(tx, caller, credential_id)

    async def list(
        self, caller: Caller, filter_text: str, order_by: str, page: PageRequest, *, deleted: bool
    ) -> Page[Credential]:
        """A page of what the caller sees, newest first by default. Raises InvalidArgument."""
        clause = store.LISTING.sql(filter_text, order_by, page, start=6)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await store.list_credentials(tx, viewer_of(caller), clause, deleted=deleted)

    async def update(
        self,
        caller: Caller,
        credential_id: str,
        changes: Mapping[str, Any],
        etag: str = "",
        *,
        validate_only: bool = False,
    ) -> Credential:
        """Change fields, by their names in `Credential`.

        Raises NotFound, Aborted(ETAG_MISMATCH), PermissionDenied, FailedPrecondition(CREDENTIAL_UNUSABLE).
        """
        tenant = caller.tenant
        if validate_only:
            caller = replace(caller, request_key=None)
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Credential)
            if again is not None:
                return again
            credential = await managed(tx, caller, credential_id, etag)
            if changes.get("environment_variable", "") != credential.environment_variable:
                _require_variable(caller, changes.get("environment_variable", ""))
            changed = replace(credential, **changes, etag=new_id().hex)
            if validate_only:
                tx.audited = True  # nothing is changed
                return changed
            made = await store.update(tx, tenant.organization_id, changed)
            await self._write_audit(tx, caller, "credential.update", made, {"paths": sorted(changes)})
            await remember(tx, tenant, caller.request_key, made)
            return made

    async def delete(self, caller: Caller, credential_id: str, etag: str = "") -> Credential:
        """Mark a credential deleted. Raises NotFound, Aborted(ETAG_MISMATCH), PermissionDenied, FailedPrecondition."""
        return await self._mark(caller, credential_id, etag, deleted=True)

    async def undelete(self, caller: Caller, credential_id: str) -> Credential:
        """Take a deletion back.

        Raises NotFound, PermissionDenied, FailedPrecondition(CREDENTIAL_UNUSABLE), ResourceExhausted(LIMIT_REACHED).
        """
        return await self._mark(caller, credential_id, "", deleted=False)

    async def _mark(self, caller: Caller, credential_id: str, etag: str, *, deleted: bool) -> Credential:
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Credential)
            if again is not None:
                return again
            await managed(tx, caller, credential_id, etag, deleted=not deleted)
            if not deleted:
                await _require_room(tx, tenant.organization_id)
            keep = self._keep_deleted if deleted else None
            made = await store.set_deleted(tx, tenant.organization_id, credential_id, new_id().hex, keep)
            await self._write_audit(tx, caller, "credential.delete" if deleted else "credential.undelete", made, {})
            await remember(tx, tenant, caller.request_key, made)
            return made

    async def _require_free(self, caller: Caller, credential: Credential) -> None:
        viewer = replace(viewer_of(caller), all=True)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            if await store.get(tx, viewer, credential.credential_id) is not None:
                raise AlreadyExists("Credential", credential.name)

    async def _write_audit(
        self, tx: Transaction, caller: Caller, action: str, credential: Credential, details: dict[str, Any]
    ) -> None:
        entry = AuditEntry(action, credential.name, category=Category.SECURITY, details=details)
        await self._audit.write(tx, caller, entry)


def _require_variable(caller: Caller, variable: str) -> None:
    """The server's environment is the installation's, not an organization's."""
    if variable:
        require_operator(caller, "name variables of the server's environment")


async def _require_room(tx: Transaction, organization_id: UUID) -> None:
    if await store.count(tx, organization_id) >= MOST_CREDENTIALS:
        text = f"the organization has {MOST_CREDENTIALS:,} credentials: delete some first"
        raise ResourceExhausted.too_many("credentials", text)
