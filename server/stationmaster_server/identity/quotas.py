"""Quotas: what a user and its organization may use, decided in the transaction that uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
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
    one_at_a_time: bool = False
    """Whether a transaction uses one of it, never more."""


class QuotaExceeded(ResourceExhausted):
    """A refusal, with what the audit trail is to be told of it."""

    def __init__(
        self, message: str, violation: QuotaViolation, retry_after: timedelta, caller: Caller, entry: AuditEntry
    ):
        super().__init__(Reason.QUOTA_EXCEEDED, message, violation, retry_after=retry_after)
        self.caller = caller
        self.entry = entry
        self.quota = f"{entry.resource} {entry.details['quota']}"
        self.limit: int = entry.details["limit"]
        self.would_be_used: int = entry.details["used"] + entry.details["wanted"]


@dataclass(frozen=True, slots=True)
class _Excess:
    """What was too much."""

    name: str
    limit: int
    used: int
    wanted: int
    retry_after: timedelta


def _until_midnight() -> timedelta:
    now = datetime.now(UTC)
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - now


_SESSIONS = _Kind(
    "max_concurrent_sessions", lambda q: q.max_concurrent_sessions, lambda u: u.sessions, lambda: _SOON, True
)
_COST = _Kind("max_cost_micros_per_day", lambda q: q.max_cost_micros_per_day, lambda u: u.cost_micros, _until_midnight)
_ADVICE = {_SESSIONS.name: "; terminate a session (TerminateSession, or: stationmaster sessions terminate)"}


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
        for quota in (limits.user, limits.organization):
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
                excess = _Excess("max_calls_per_hour", limit, limit, 1, wait)
                raise _exceeded(caller, quota, tenant.organization_id, excess)

    async def open_session(self, tx: Transaction, caller: Caller) -> None:
        """Count a session that this transaction creates; call it late: others may wait for its end.

        To be called under `telling`.
        """
        await self._use(tx, caller, _SESSIONS, 1, Change(sessions=1))

    async def close_session(self, tx: Transaction, tenant: Tenant) -> None:
        """Count a session out that this transaction terminates or archives; `tenant` has the user who opened it."""
        await self._add(tx, tenant, Change(sessions=-1))

    async def cost_left(self, caller: Caller) -> int | None:
        """What is left of today's cost, in millionths of a US dollar; None where it is not limited.

        Others may take it before it is reserved.
        """
        limits = await self._limits.of(caller.tenant)
        limited = [quota for quota in (limits.user, limits.organization) if _COST.limit(quota) is not None]
        if not limited:
            return None
        async with self._database.system(autocommit=True) as tx:
            subjects = [quota.subject_id for quota in limited]
            used = await quota_store.get_used(tx, caller.tenant.organization_id, subjects)
        return max(min((_COST.limit(quota) or 0) - _COST.used(used[quota.subject_id]) for quota in limited), 0)

    async def reserve_cost(
        self,
        caller: Caller,
        amount_micros: int,
        record: Callable[[Transaction, Reservation], Awaitable[None]],
        earlier: Reservation | None = None,
    ) -> Reservation:
        """Set an amount aside before a model is asked; committed when it returns. Where nothing is limited, nothing.

        What was set aside `earlier` today is part of it. `record` writes down in the same transaction what is set
        aside, so that a crash forgets neither.
        """
        limits = await self._limits.of(caller.tenant)
        if amount_micros <= 0 or (_COST.limit(limits.user) is None and _COST.limit(limits.organization) is None):
            return earlier or Reservation(caller.tenant, 0, None)
        async with self.telling(), self._database.system() as tx:
            limited = [quota for quota in (limits.user, limits.organization) if _COST.limit(quota) is not None]
            await quota_store.lock_subjects(tx, [quota.subject_id for quota in limited])
            day = await quota_store.today(tx)
            before = earlier.amount_micros if earlier is not None and earlier.day == day else 0
            more = max(amount_micros - before, 0)
            await self._check(tx, caller, _COST, more, limited, day)
            await self._add(tx, caller.tenant, Change(cost_reserved=more), day)
            reservation = Reservation(caller.tenant, before + more, day)
            await record(tx, reservation)
        return reservation

    async def settle(self, tx: Transaction, reservation: Reservation, actual_micros: int) -> None:
        """Replace a reservation by what the call cost, which counts on the day for which it was reserved."""
        if reservation.amount_micros or actual_micros:
            change = Change(cost_reserved=-reservation.amount_micros, cost_settled=actual_micros)
            await self._add(tx, reservation.tenant, change, reservation.day)

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
            raise _exceeded(caller, quota, organization_id, _Excess("max_users", quota.max_users, used, 1, _SOON))

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

    async def _use(self, tx: Transaction, caller: Caller, kind: _Kind, wanted: int, change: Change) -> None:
        limits = await self._limits.within(tx, caller.tenant)
        limited = [quota for quota in (limits.user, limits.organization) if kind.limit(quota) is not None]
        if limited and not (kind.one_at_a_time and await self._far_from_full(tx, caller, kind, limited)):
            await quota_store.lock_subjects(tx, [quota.subject_id for quota in limited])
            await self._check(tx, caller, kind, wanted, limited)
        await self._add(tx, caller.tenant, change)

    async def _far_from_full(self, tx: Transaction, caller: Caller, kind: _Kind, limited: Sequence[Quota]) -> bool:
        """Whether so much is left that all transactions there can be at a time fit in, each with one more.

        They then use it side by side, under a shared lock: whoever comes closer to the limit waits until they end,
        and counts what they committed. So the limit stays exact, and far from it nobody waits for another's commit.
        """
        if self._most_transactions is None:
            self._most_transactions = await quota_store.most_connections(tx)
        needed = self._most_transactions
        if any((kind.limit(quota) or 0) <= needed for quota in limited):
            return False
        await quota_store.lock_subjects(tx, [quota.subject_id for quota in limited], shared=True)
        try:
            await self._check(tx, caller, kind, needed, limited)
        except QuotaExceeded:
            await quota_store.unlock_subjects(tx)
            return False
        return True

    async def _check(
        self,
        tx: Transaction,
        caller: Caller,
        kind: _Kind,
        wanted: int,
        limited: Sequence[Quota],
        day: date | None = None,
    ) -> None:
        organization_id = caller.tenant.organization_id
        used = await quota_store.get_used(tx, organization_id, [quota.subject_id for quota in limited], day)
        for quota in limited:
            limit, now = kind.limit(quota), kind.used(used[quota.subject_id])
            if limit is not None and now + wanted > limit:
                excess = _Excess(kind.name, limit, now, wanted, kind.retry_after())
                raise _exceeded(caller, quota, organization_id, excess)

    @staticmethod
    async def _add(tx: Transaction, tenant: Tenant, change: Change, day: date | None = None) -> None:
        subjects = (tenant.user_id, tenant.organization_id)
        await quota_store.add(tx, tenant.organization_id, subjects, change, day)

    def _heard(self, payload: str | None) -> None:
        if payload is None or payload.startswith("quota:"):
            self.forget()


def _exceeded(caller: Caller, quota: Quota, organization_id: UUID, excess: _Excess) -> QuotaExceeded:
    subject = subject_name(quota.subject_id, organization_id)
    description = f"{excess.name} is {excess.limit}; {excess.used} are used and {excess.wanted} more were asked for"
    details = {"quota": excess.name, "limit": excess.limit, "used": excess.used, "wanted": excess.wanted}
    entry = AuditEntry(
        "quota.refuse", f"{subject}/quota", Outcome.DENIED, Category.SECURITY, Reason.QUOTA_EXCEEDED.value, details
    )
    advice = _ADVICE.get(excess.name, "")
    message = f"the quota of {subject} is used up: {description}{advice}"
    return QuotaExceeded(message, QuotaViolation(subject, description), excess.retry_after, caller, entry)


def subject_name(subject_id: UUID, organization_id: UUID) -> str:
    """The name of whom a quota is for."""
    return f"organizations/{subject_id}" if subject_id == organization_id else f"users/{subject_id}"
