"""Quotas: what a user and its organization may use, decided in the transaction that uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NoReturn
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import QuotaViolation, Reason, ResourceExhausted
from stationmaster_server.identity import key_store, quota_store, store
from stationmaster_server.identity.auditing import AuditWriter
from stationmaster_server.identity.calls import CallMeters
from stationmaster_server.identity.limits import LimitCache
from stationmaster_server.identity.model import AuditEntry, Caller, Category, Outcome, Quota, Tenant
from stationmaster_server.identity.quota_store import Change, Used

_SOON = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Cost that is set aside before a model is asked, in millionths of a US dollar; `settle` it with what it cost."""

    tenant: Tenant
    amount_micros: int
    day: date | None


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of counted quota."""

    name: str
    limit: Callable[[Quota], int | None]
    used: Callable[[Used], int]
    retry_after: Callable[[], timedelta]


def _until_midnight() -> timedelta:
    now = datetime.now(UTC)
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - now


_SESSIONS = _Kind("max_concurrent_sessions", lambda q: q.max_concurrent_sessions, lambda u: u.sessions, lambda: _SOON)
_COST = _Kind("max_cost_micros_per_day", lambda q: q.max_cost_micros_per_day, lambda u: u.cost_micros, _until_midnight)
_STORAGE = _Kind("max_storage_bytes", lambda q: q.max_storage_bytes, lambda u: u.storage_bytes, lambda: _SOON)


class Quotas:
    """One for each process. Refusals are ResourceExhausted(QUOTA_EXCEEDED) and are in the audit trail when raised.

    Every limit holds for the user and, added up over its users, for the organization. Limits are those known to this
    server, which hears of a change within a second; under them nothing is ever overrun, whoever races.
    """

    def __init__(self, database: Database, listener: Listener, audit: AuditWriter) -> None:
        self._database = database
        self._audit = audit
        self._limits = LimitCache(database)
        self._calls = CallMeters(database)
        listener.add(key_store.CHANNEL, self._heard)

    async def take_call(self, caller: Caller) -> None:
        """Count one call."""
        tenant = caller.tenant
        limits = self._limits.peek(tenant) or await self._limits.of(tenant)
        if limits.calls_unlimited:
            return
        taken: list[Quota] = []
        for quota in (limits.user, limits.organization):
            if quota.max_calls_per_hour is None:
                continue
            wait = await self._calls.take(tenant.organization_id, quota)
            if wait is not None:
                for other in taken:
                    self._calls.give_back(other)
                limit = quota.max_calls_per_hour
                await self._refuse(caller, quota, "max_calls_per_hour", limit, limit, 1, wait)
            taken.append(quota)

    async def open_session(self, tx: Transaction, caller: Caller) -> None:
        """Count a session that this transaction creates; call it late: others of a limited subject wait for the end."""
        await self._use(tx, caller, _SESSIONS, 1, Change(sessions=1))

    async def close_session(self, tx: Transaction, tenant: Tenant) -> None:
        """Count a session out that this transaction terminates or archives; `tenant` has the user who opened it."""
        await self._add(tx, tenant, Change(sessions=-1))

    async def reserve_cost(self, caller: Caller, amount_micros: int) -> Reservation:
        """Set an amount aside before a model is asked; committed when it returns. Where nothing is limited, nothing."""
        limits = await self._limits.of(caller.tenant)
        if amount_micros <= 0 or (_COST.limit(limits.user) is None and _COST.limit(limits.organization) is None):
            return Reservation(caller.tenant, 0, None)
        async with self._database.system() as tx:
            day = await self._use(tx, caller, _COST, amount_micros, Change(cost_reserved=amount_micros))
        return Reservation(caller.tenant, amount_micros, day)

    async def settle(self, tx: Transaction, reservation: Reservation, actual_micros: int) -> None:
        """Replace a reservation by what the call cost, which counts even where it is more."""
        if reservation.amount_micros or actual_micros:
            change = Change(cost_reserved=-reservation.amount_micros, cost_settled=actual_micros)
            await self._add(tx, reservation.tenant, change, reservation.day)

    async def reserve_storage(self, tx: Transaction, caller: Caller, size_bytes: int) -> None:
        """Set bytes aside before they are taken."""
        await self._use(tx, caller, _STORAGE, size_bytes, Change(storage_reserved=size_bytes))

    async def settle_storage(self, tx: Transaction, tenant: Tenant, reserved_bytes: int, used_bytes: int) -> None:
        """Replace reserved bytes by those that are used now; a deletion reserves none and uses less than none."""
        await self._add(tx, tenant, Change(storage_reserved=-reserved_bytes, storage_used=used_bytes))

    async def add_user(self, tx: Transaction, caller: Caller, organization_id: UUID) -> None:
        """Check that the organization may have one more user; others that add one wait for this transaction's end."""
        quota = (await quota_store.get_quotas(tx, organization_id, [organization_id])).get(organization_id)
        if quota is None or quota.max_users is None:
            return
        await store.lock_organization(tx, organization_id)
        used = await store.count_users(tx, organization_id)
        if used >= quota.max_users:
            await self._refuse(caller, quota, "max_users", quota.max_users, used, 1, _SOON, organization_id)

    async def _use(self, tx: Transaction, caller: Caller, kind: _Kind, wanted: int, change: Change) -> date:
        limits = await self._limits.of(caller.tenant)
        limited = [(q, limit) for q in (limits.user, limits.organization) if (limit := kind.limit(q)) is not None]
        if limited:
            subjects = [quota.subject_id for quota, _ in limited]
            await quota_store.lock_subjects(tx, subjects)
            used = await quota_store.get_used(tx, caller.tenant.organization_id, subjects)
            for quota, limit in limited:
                now = kind.used(used[quota.subject_id])
                if now + wanted > limit:
                    await self._refuse(caller, quota, kind.name, limit, now, wanted, kind.retry_after())
        return await self._add(tx, caller.tenant, change)

    @staticmethod
    async def _add(tx: Transaction, tenant: Tenant, change: Change, reserved_on: date | None = None) -> date:
        subjects = (tenant.user_id, tenant.organization_id)
        return await quota_store.add(tx, tenant.organization_id, subjects, change, reserved_on)

    async def _refuse(
        self,
        caller: Caller,
        quota: Quota,
        name: str,
        limit: int,
        used: int,
        wanted: int,
        retry_after: timedelta,
        organization_id: UUID | None = None,
    ) -> NoReturn:
        subject = subject_name(quota.subject_id, organization_id or caller.tenant.organization_id)
        description = f"{name} is {limit}; {used} are used and {wanted} more were asked for"
        details = {"quota": name, "limit": limit, "used": used, "wanted": wanted}
        entry = AuditEntry(
            "quota.refuse", f"{subject}/quota", Outcome.DENIED, Category.SECURITY, Reason.QUOTA_EXCEEDED.value, details
        )
        await self._audit.write_refusal(caller, entry)
        violation = QuotaViolation(subject, description)
        message = f"the quota of {subject} is used up: {description}"
        raise ResourceExhausted(Reason.QUOTA_EXCEEDED, message, violation, retry_after=retry_after)

    def forget(self) -> None:
        """Ask the database for every limit anew."""
        self._limits.forget()

    def _heard(self, payload: str | None) -> None:
        if payload is None or payload.startswith("quota:"):
            self.forget()


def subject_name(subject_id: UUID, organization_id: UUID) -> str:
    """The name of whom a quota is for."""
    return f"organizations/{subject_id}" if subject_id == organization_id else f"users/{subject_id}"
