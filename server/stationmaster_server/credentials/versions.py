"""Versions: adding, disabling and destroying them, and the steps of a rotation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials import store, values, version_store
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import (
    Credential,
    Labels,
    Rotation,
    Step,
    Trial,
    Value,
    Version,
    VersionState,
    check_transition,
    unusable,
)
from stationmaster_server.credentials.rights import managed, seen, with_own_fingerprint
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument, NotFound, Reason
from stationmaster_server.identity.model import AuditEntry, Category

_TAKES_VALUE = frozenset({Step.REPLACE, Step.BEGIN})


class Versions:
    """The versions of credentials. `grace`: how long one that was replaced stays readable by default."""

    def __init__(self, database: Database, audit: AuditLog, keyring: Keyring, *, grace: timedelta) -> None:
        self._database = database
        self._audit = audit
        self._keyring = keyring
        self._grace = grace

    async def list(
        self, caller: Caller, credential_id: str, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[Version]:
        """A page of versions, newest first by default. Raises NotFound, InvalidArgument."""
        clause = version_store.LISTING.sql(filter_text, order_by, page, start=3)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            credential = await seen(tx, caller, credential_id)
            return await version_store.list_versions(tx, caller.tenant.organization_id, credential, clause)

    async def add(
        self,
        caller: Caller,
        credential_id: str,
        value: Value,
        expires_at: datetime | None = None,
        *,
        pending: bool = False,
        grace: timedelta | None = None,
    ) -> Version:
        """Add a version: the current one, or the pending one.

        Raises NotFound, InvalidArgument, PermissionDenied, FailedPrecondition(CREDENTIAL_UNUSABLE, ROTATION_NOT_READY),
        ResourceExhausted(LIMIT_REACHED), Unavailable(ENCRYPTION_KEY_UNAVAILABLE).
        """
        rotation = Rotation(Step.BEGIN if pending else Step.REPLACE, value, expires_at, grace=grace)
        self._keyring.require()
        await values.reserve(self._keyring, encrypted=bool(value.secret))
        async with self._database.tenant(caller.tenant) as tx:
            caller = await with_own_fingerprint(tx, self._keyring, caller)
            again = await recall(tx, caller.tenant, caller.request_key, Version)
            if again is not None:
                return again
            credential = await managed(tx, caller, credential_id)
            changed, number = await self._stored(tx, caller, credential, rotation)
            made = await self._version(tx, caller, changed, number)
            label = (made.label or "").lower()
            await self._write_audit(tx, caller, "credential.version.add", made.name, {"label": label})
            await remember(tx, caller.tenant, caller.request_key, made)
            return made

    async def rotate(self, caller: Caller, credential_id: str, rotation: Rotation, etag: str = "") -> Credential:
        """Take one step of a rotation.

        Raises as `add`, Aborted(ETAG_MISMATCH), FailedPrecondition(CREDENTIAL_EXPIRED).
        """
        if rotation.step not in _TAKES_VALUE and rotation.value:
            raise InvalidArgument.field("value", f"step {rotation.step} takes no value")
        self._keyring.require()
        await values.reserve(self._keyring, encrypted=bool(rotation.value.secret))
        async with self._database.tenant(caller.tenant) as tx:
            caller = await with_own_fingerprint(tx, self._keyring, caller)
            again = await recall(tx, caller.tenant, caller.request_key, Credential)
            if again is not None:
                return again
            credential = await managed(tx, caller, credential_id, etag)
            made = await self._step(tx, caller, credential, rotation)
            details = {"step": rotation.step.value, "trial": rotation.trial.value, **_shown(made.labels)}
            await self._write_audit(tx, caller, "credential.rotate", made.name, details)
            await remember(tx, caller.tenant, caller.request_key, made)
            return made

    async def replace(self, tx: Transaction, caller: Caller, credential: Credential, value: Value) -> Credential:
        """Give a credential whose row is locked a new current version; the keyring has reserved a wrap."""
        return (await self._stored(tx, caller, credential, Rotation(Step.REPLACE, value)))[0]

    async def disable(self, caller: Caller, credential_id: str, number: int, *, enable: bool = False) -> Version:
        """Disable a version, or enable it.

        Raises NotFound, PermissionDenied, FailedPrecondition(ILLEGAL_TRANSITION, CREDENTIAL_UNUSABLE).
        """
        return await self._move(
            caller, credential_id, number, VersionState.ENABLED if enable else VersionState.DISABLED
        )

    async def destroy(self, caller: Caller, credential_id: str, number: int) -> Version:
        """Erase a version. Raises as `disable`."""
        return await self._move(caller, credential_id, number, VersionState.DESTROYED)

    async def _move(self, caller: Caller, credential_id: str, number: int, state: VersionState) -> Version:
        tenant = caller.tenant
        organization_id = tenant.organization_id
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Version)
            if again is not None:
                return again
            credential = await managed(tx, caller, credential_id)
            version = await self._version(tx, caller, credential, number)
            check_transition(version.name, version.state, state)
            if state is VersionState.DESTROYED:
                await version_store.destroy(tx, organization_id, credential.uid, number)
                labels = credential.labels.without(number)
                credential = await store.set_labels(tx, organization_id, credential.uid, labels, new_id().hex)
            else:
                await version_store.set_state(tx, organization_id, credential.uid, number, state)
            made = await self._version(tx, caller, credential, number)
            await self._write_audit(tx, caller, f"credential.version.{_VERBS[state]}", made.name, {})
            await remember(tx, tenant, caller.request_key, made)
            return made

    async def _step(self, tx: Transaction, caller: Caller, credential: Credential, rotation: Rotation) -> Credential:
        match rotation.step:
            case Step.REPLACE | Step.BEGIN:
                return (await self._stored(tx, caller, credential, rotation))[0]
            case Step.REPORT:
                return await self._reported(tx, caller, credential, rotation.trial)
            case Step.FINISH:
                pending = await self._pending(tx, caller, credential)
                _require_trial(credential, pending, skip=rotation.skip_trial)
                await self._require_usable(tx, caller, credential, pending.version)
                return await self._relabel(tx, caller, credential, pending.version, rotation.grace)
            case Step.ABORT:
                pending = await self._pending(tx, caller, credential)
                organization_id = caller.tenant.organization_id
                await version_store.destroy(tx, organization_id, credential.uid, pending.version)
                labels = credential.labels.without(pending.version)
                return await store.set_labels(tx, organization_id, credential.uid, labels, new_id().hex)
            case Step.ROLLBACK:
                previous = credential.labels.previous
                if previous is None:
                    raise _not_ready(credential, "has no previous version to go back to")
                await self._require_usable(tx, caller, credential, previous)
                return await self._relabel(tx, caller, credential, previous, rotation.grace)
            case _:
                assert_never(rotation.step)

    async def _stored(
        self, tx: Transaction, caller: Caller, credential: Credential, rotation: Rotation
    ) -> tuple[Credential, int]:
        """A new value, under its label."""
        values.check_value(rotation.value, encrypted=credential.encrypted)
        values.check_end(rotation.expires_at, "expire_time")
        if rotation.step is Step.BEGIN and credential.labels.pending is not None:
            why = "has a pending version already: finish or abort its rotation first"
            raise _not_ready(credential, why)
        number = await values.add(tx, self._keyring, caller, credential, rotation.value, rotation.expires_at)
        if rotation.step is Step.BEGIN:
            labels = replace(credential.labels, pending=number)
            organization_id = caller.tenant.organization_id
            return await store.set_labels(tx, organization_id, credential.uid, labels, new_id().hex), number
        return await self._relabel(tx, caller, credential, number, rotation.grace), number

    async def _relabel(
        self, tx: Transaction, caller: Caller, credential: Credential, number: int, grace: timedelta | None
    ) -> Credential:
        """Make a version current and the current one previous, in one step."""
        organization_id, labels = caller.tenant.organization_id, credential.labels.replaced_by(number)
        await version_store.set_grace(
            tx,
            organization_id,
            credential.uid,
            current=number,
            replaced=labels.previous,
            grace=self._grace if grace is None else grace,
        )
        return await store.set_labels(tx, organization_id, credential.uid, labels, new_id().hex)

    async def _reported(self, tx: Transaction, caller: Caller, credential: Credential, trial: Trial) -> Credential:
        if trial is Trial.NONE:
            raise InvalidArgument.field("trial", "is required by step REPORT: PASSED or FAILED")
        pending = await self._pending(tx, caller, credential)
        organization_id = caller.tenant.organization_id
        await version_store.set_trial(tx, organization_id, credential.uid, pending.version, trial)
        return await store.set_labels(tx, organization_id, credential.uid, credential.labels, new_id().hex)

    async def _pending(self, tx: Transaction, caller: Caller, credential: Credential) -> Version:
        if credential.labels.pending is None:
            raise _not_ready(credential, "has no pending version: begin a rotation first")
        return await self._version(tx, caller, credential, credential.labels.pending)

    async def _version(self, tx: Transaction, caller: Caller, credential: Credential, number: int) -> Version:
        version = await version_store.get(tx, caller.tenant.organization_id, credential, number)
        if version is None:
            raise NotFound("CredentialVersion", f"{credential.name}/versions/{number}")
        return version

    async def _require_usable(self, tx: Transaction, caller: Caller, credential: Credential, number: int) -> None:
        version = await self._version(tx, caller, credential, number)
        if version.state is not VersionState.ENABLED:
            raise unusable("VERSION_STATE", version.name, f"is {version.state.lower()}: it cannot become current")
        ends = [end for end in (version.expires_at, version.grace_ends_at) if end is not None]
        if ends and min(ends) <= datetime.now(UTC):
            raise unusable("EXPIRED", version.name, "has expired: it cannot become current", Reason.CREDENTIAL_EXPIRED)

    async def _write_audit(
        self, tx: Transaction, caller: Caller, action: str, resource: str, details: dict[str, Any]
    ) -> None:
        await self._audit.write(tx, caller, AuditEntry(action, resource, category=Category.SECURITY, details=details))


_VERBS = {VersionState.ENABLED: "enable", VersionState.DISABLED: "disable", VersionState.DESTROYED: "destroy"}


def _shown(labels: Labels) -> dict[str, int]:
    pointed = {"current": labels.current, "previous": labels.previous, "pending": labels.pending}
    return {label: version for label, version in pointed.items() if version is not None}


def _require_trial(credential: Credential, pending: Version, *, skip: bool) -> None:
    if pending.trial is Trial.FAILED:
        raise _not_ready(
            credential, "has a pending version whose trial failed: abort the rotation, or report that it passed"
        )
    if pending.trial is Trial.NONE and not skip:
        raise _not_ready(
            credential,
            "has a pending version that was not tried: say how its trial went, or that it needs none (skip_trial)",
        )


def _not_ready(credential: Credential, why: str) -> Exception:
    return unusable("ROTATION", credential.name, why, Reason.ROTATION_NOT_READY)
