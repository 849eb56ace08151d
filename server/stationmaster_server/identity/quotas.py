"""Quotas: what a user and its organization may use, decided in the transaction that uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity import key_store, quota_store, store
from stationmaster_server.identity.auditing import AuditWriter
from stationmaster_server.identity.calls import CallMeters
from stationmaster_server.identity.excess import (
    COST,
    DAILY,
    RUNNING_TIME,
    SOON,
    TOKENS,
    Excess,
    Kind,
    QuotaExceeded,
    exceeded,
    excess,
    first_excess,
)
from stationmaster_server.identity.limits import LimitCache, Limits
from stationmaster_server.identity.model import NOTHING, Amounts, Caller, Quota, Tenant

_LEAST_TIME, _MOST_TIME = timedelta(seconds=1), timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Amounts that are set aside before a model is asked; `settle` it with what was used."""

    tenant: Tenant
    amounts: Amounts = NOTHING
    day: date | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """Running time that is set aside, of a day."""

    length: timedelta
    day: date


@dataclass(frozen=True, slots=True)
class Left:
    """What the quotas leave of today, None meaning any amount. Others may take it before it is reserved."""

    tokens: int | None = None
    cost_micros: int | None = None


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
        self._most_transactions: int | None = None
        listener.add(key_store.CHANNEL, self._heard)

    async def take_call(self, caller: Caller) -> None:
        """Count one call."""
        tenant = caller.tenant
        limits = self._limits.peek(tenant) or await self._limits.of(tenant)
        if limits.calls_unlimited:
            return
        taken: list[Quota] = []
        for quota in limits.quotas:
            if quota.max_calls_per_hour is None:
                continue
            wait = await self._calls.take(tenant.organization_id, quota)
            if wait is None:
                taken.append(quota)
                continue
            for other in taken:
                self._calls.give_back(other)
            limit = quota.max_calls_per_hour
            async with self.telling():
                too_many = Excess("max_calls_per_hour", limit, limit, 1, wait)
                raise exceeded(caller, quota, tenant.organization_id, too_many)

    async def open_session(self, tx: Transaction, caller: Caller) -> None:
        """Count a session that this transaction creates; call it late: others may wait for its end.

        To be called under `telling`.
        """
        limits = await self._limits.within(tx, caller.tenant)
        limited = [quota for quota in limits.quotas if quota.max_concurrent_sessions is not None]
        if limited and not await self._far_from_full(tx, caller, limited):
            await quota_store.lock_subjects(tx, _subjects(limited))
            await self._check_sessions(tx, caller, limited, 1)
        await self._add(tx, caller.tenant, sessions=1)

    async def close_session(self, tx: Transaction, tenant: Tenant) -> None:
        """Count a session out that this transaction terminates or archives; `tenant` has the user who opened it."""
        await self._add(tx, tenant, sessions=-1)

    async def left(self, caller: Caller) -> Left | None:
        """What is left of today's tokens and cost; None where neither is limited."""
        limits = await self._limits.of(caller.tenant)
        limited = _limited(limits, TOKENS, COST)
        if not limited:
            return None
        async with self._database.system(autocommit=True) as tx:
            used = await quota_store.get_used(tx, caller.tenant.organization_id, _subjects(limited))
        today = {subject: each.today for subject, each in used.items()}
        return Left(_least(TOKENS, limited, today), _least(COST, limited, today))

    async def limits_any(self, caller: Caller, wanted: Amounts) -> bool:
        """Whether the day's quotas limit any of these amounts, so that they must be reserved."""
        return bool(_limited(await self._limits.of(caller.tenant), *_kinds(wanted)))

    async def limits_time(self, caller: Caller) -> bool:
        """Whether the day's quotas limit running time."""
        return bool(_limited(await self._limits.of(caller.tenant), RUNNING_TIME))

    async def reserve(
        self, tx: Transaction, caller: Caller, wanted: Amounts, earlier: Reservation | None = None
    ) -> Reservation:
        """Set amounts aside, in a transaction that commits before they are used. Where nothing is limited, nothing.

        What was set aside `earlier` today is part of it. To be called under `telling`; others that reserve the same
        wait for this transaction's end.
        """
        limits = await self._limits.within(tx, caller.tenant)
        limited = _limited(limits, *_kinds(wanted))
        if not limited:
            return earlier or Reservation(caller.tenant)
        day = await self._lock(tx, limited)
        before = earlier.amounts if earlier is not None and earlier.day == day else NOTHING
        more = wanted.at_least(before) - before
        used = await quota_store.get_used(tx, caller.tenant.organization_id, _subjects(limited), day)
        for quota in limited:
            too_much = first_excess(quota, used[quota.subject_id], more)
            if too_much is not None:
                raise exceeded(caller, quota, caller.tenant.organization_id, too_much)
        await self._add(tx, caller.tenant, more, day=day)
        return Reservation(caller.tenant, before + more, day)

    async def reserve_time(self, tx: Transaction, caller: Caller) -> Slice | None:
        """Set aside some running time, less as the limit comes near; None where it is not limited.

        To be called under `telling`, as `reserve`.
        """
        limits = await self._limits.within(tx, caller.tenant)
        limited = _limited(limits, RUNNING_TIME)
        if not limited:
            return None
        day = await self._lock(tx, limited)
        used = await quota_store.get_used(tx, caller.tenant.organization_id, _subjects(limited), day)
        length = _MOST_TIME
        for quota in limited:
            limit, now = quota.max_running_time_per_day or timedelta(0), used[quota.subject_id].today.running_time
            if limit - now < _LEAST_TIME:
                amounts = (RUNNING_TIME.of(Amounts(running_time=each)) for each in (limit, now, _LEAST_TIME))
                raise exceeded(caller, quota, caller.tenant.organization_id, excess(RUNNING_TIME, *amounts))
            # A twentieth of what is left, so that turns hold back less as the limit comes near.
            length = min(length, max((limit - now) / 20, _LEAST_TIME))
        await self._add(tx, caller.tenant, Amounts(running_time=length), day=day)
        return Slice(length, day)

    async def settle(self, tx: Transaction, reservation: Reservation, actual: Amounts) -> None:
        """Replace a reservation by what was used, which counts on the day for which it was reserved."""
        if reservation.day is not None or actual.cost_micros:
            await self._add(tx, reservation.tenant, actual - reservation.amounts, day=reservation.day)

    async def reserve_storage(self, tx: Transaction, caller: Caller, owner: UUID, more: int) -> None:
        """Set bytes aside for what a user of the caller's organization stores, before they are taken.

        To be called under `telling`; call it late: others that store for the same user or organization wait for this
        transaction's end where it is limited.
        """
        organization_id = caller.tenant.organization_id
        limits = await self._limits.within(tx, Tenant(organization_id, owner))
        limited = [quota for quota in limits.quotas if quota.max_storage_bytes is not None]
        if limited and more > 0:
            await quota_store.lock_subjects(tx, _subjects(limited))
            used = await quota_store.get_used(tx, organization_id, _subjects(limited))
            for quota in limited:
                limit, now = quota.max_storage_bytes, used[quota.subject_id].storage_bytes
                if limit is not None and now + more > limit:
                    too_much = Excess("max_storage_bytes", limit, now, more, SOON, " bytes")
                    raise exceeded(caller, quota, organization_id, too_much)
        await self.count_storage(tx, organization_id, owner, reserved=more)

    async def count_storage(
        self, tx: Transaction, organization_id: UUID, owner: UUID, *, used: int = 0, reserved: int = 0
    ) -> None:
        """Add to what is stored of a user and the organization, or take away from it."""
        if used or reserved:
            more = quota_store.Stored(used, reserved)
            await quota_store.add_stored(tx, organization_id, (owner, organization_id), more)

    async def add_user(self, tx: Transaction, caller: Caller, organization_id: UUID) -> None:
        """Check that the organization may have one more user; others that add one wait for this transaction's end.

        To be called under `telling`.
        """
        quota = (await quota_store.get_quotas(tx, organization_id, [organization_id])).get(organization_id)
        if quota is None or quota.max_users is None:
            return
        await store.lock_organization(tx, organization_id)
        used = await store.count_users(tx, organization_id)
        if used >= quota.max_users:
            raise exceeded(caller, quota, organization_id, Excess("max_users", quota.max_users, used, 1, SOON))

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Puts a refusal that leaves the body into the audit trail first.

        Around a transaction, never inside one: what it holds would be held until the trail has committed.
        """
        try:
            yield
        except QuotaExceeded as refusal:
            await self._audit.write_refusal(refusal.caller, refusal.entry)
            raise

    def forget(self) -> None:
        """Ask the database for every limit anew."""
        self._limits.forget()

    async def _far_from_full(self, tx: Transaction, caller: Caller, limited: Sequence[Quota]) -> bool:
        """Whether so much is left that all transactions there can be at a time fit in, each with one session more.

        They then use it side by side, under a shared lock: whoever comes closer to the limit waits until they end,
        and counts what they committed. So the limit stays exact, and far from it nobody waits for another's commit.
        """
        if self._most_transactions is None:
            self._most_transactions = await quota_store.most_connections(tx)
        needed = self._most_transactions
        if any((quota.max_concurrent_sessions or 0) <= needed for quota in limited):
            return False
        await quota_store.lock_subjects(tx, _subjects(limited), shared=True)
        try:
            await self._check_sessions(tx, caller, limited, needed)
        except QuotaExceeded:
            await quota_store.unlock_subjects(tx)
            return False
        return True

    @staticmethod
    async def _check_sessions(tx: Transaction, caller: Caller, limited: Sequence[Quota], wanted: int) -> None:
        organization_id = caller.tenant.organization_id
        used = await quota_store.get_used(tx, organization_id, _subjects(limited))
        for quota in limited:
            limit, now = quota.max_concurrent_sessions, used[quota.subject_id].sessions
            if limit is not None and now + wanted > limit:
                too_many = Excess("max_concurrent_sessions", limit, now, wanted, SOON)
                raise exceeded(caller, quota, organization_id, too_many)

    @staticmethod
    async def _lock(tx: Transaction, limited: Sequence[Quota]) -> date:
        """Nobody else uses what these have left until the transaction's end; returns the day that it is then."""
        await quota_store.lock_subjects(tx, _subjects(limited))
        return await quota_store.today(tx)

    @staticmethod
    async def _add(
        tx: Transaction, tenant: Tenant, amounts: Amounts = NOTHING, *, sessions: int = 0, day: date | None = None
    ) -> None:
        subjects = (tenant.user_id, tenant.organization_id)
        await quota_store.add(tx, tenant.organization_id, subjects, amounts, sessions=sessions, day=day)

    def _heard(self, payload: str | None) -> None:
        if payload is None or payload.startswith("quota:"):
            self.forget()


def _kinds(wanted: Amounts) -> list[Kind]:
    return [kind for kind in DAILY if kind.of(wanted)]


def _limited(limits: Limits, *kinds: Kind) -> list[Quota]:
    """Those of the quotas, the user's before the organization's, that limit any of these."""
    return [quota for quota in limits.quotas if any(kind.limit(quota) is not None for kind in kinds)]


def _subjects(quotas: Sequence[Quota]) -> list[UUID]:
    return [quota.subject_id for quota in quotas]


def _least(kind: Kind, quotas: Sequence[Quota], today: Mapping[UUID, Amounts]) -> int | None:
    """What is left of the quota that leaves least."""
    left = [limit - kind.of(today[quota.subject_id]) for quota in quotas if (limit := kind.limit(quota)) is not None]
    return max(min(left), 0) if left else None
