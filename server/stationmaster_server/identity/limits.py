"""The limits of callers, kept in the process: most callers have none, and asking the database each time would show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity import quota_store
from stationmaster_server.identity.model import Quota, Tenant

_MOST_KEPT = 50_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The quotas that a caller's doings count against."""

    user: Quota
    organization: Quota
    fresh_until: float
    """By `time.monotonic()`."""

    @property
    def quotas(self) -> tuple[Quota, Quota]:
        """Both, in the order in which they are locked."""
        return self.user, self.organization

    @property
    def calls_unlimited(self) -> bool:
        """Whether calls need not be counted at all."""
        return self.user.max_calls_per_hour is None and self.organization.max_calls_per_hour is None


class LimitCache:
    """Limits by tenant: forgotten all at once when a quota is set, and each after `lifetime`."""

    def __init__(self, database: Database, lifetime: timedelta = timedelta(seconds=10)) -> None:
        self._database = database
        self._lifetime = lifetime.total_seconds()
        self._kept: dict[Tenant, Limits] = {}
        self._generation = 0

    def peek(self, tenant: Tenant) -> Limits | None:
        """What is known without asking."""
        limits = self._kept.get(tenant)
        return limits if limits is not None and time.monotonic() < limits.fresh_until else None

    async def of(self, tenant: Tenant) -> Limits:
        """The limits of a tenant."""
        limits = self.peek(tenant)
        if limits is None:
            async with self._database.system(autocommit=True) as tx:
                limits = await self.within(tx, tenant)
        return limits

    async def within(self, tx: Transaction, tenant: Tenant) -> Limits:
        """The limits of a tenant, for whoever has a transaction open: to wait for a second connection may deadlock."""
        limits = self.peek(tenant)
        if limits is not None:
            return limits
        fresh_until, generation = time.monotonic() + self._lifetime, self._generation
        subjects = (tenant.user_id, tenant.organization_id)
        quotas = await quota_store.get_quotas(tx, tenant.organization_id, subjects)
        user, organization = (quotas.get(subject, Quota(subject)) for subject in subjects)
        limits = Limits(user, organization, fresh_until)
        if generation == self._generation:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[tenant] = limits
        return limits

    def forget(self) -> None:
        """Believe nothing any more, not even what is being read just now."""
        self._kept.clear()
        self._generation += 1
