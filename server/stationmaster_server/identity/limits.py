"""The limits of callers, kept in the process: most callers have none, and asking the database each time would show."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.db.engine import Database
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
    def calls_unlimited(self) -> bool:
        """Whether calls need not be counted at all."""
        return self.user.max_calls_per_hour is None and self.organization.max_calls_per_hour is None


class LimitCache:
    """Limits by tenant: forgotten all at once when a quota is set, and each after `lifetime`."""

    def __init__(self, database: Database, lifetime: timedelta = timedelta(seconds=10)) -> None:
        self._database = database
        self._lifetime = lifetime.total_seconds()
        self._kept: dict[Tenant, Limits] = {}
        self._loading: dict[Tenant, asyncio.Task[Limits]] = {}

    def peek(self, tenant: Tenant) -> Limits | None:
        """What is known without asking."""
        limits = self._kept.get(tenant)
        return limits if limits is not None and time.monotonic() < limits.fresh_until else None

    async def of(self, tenant: Tenant) -> Limits:
        """The limits of a tenant; callers that ask at the same time share one query."""
        limits = self.peek(tenant)
        if limits is not None:
            return limits
        loading = self._loading.get(tenant)
        if loading is None:
            loading = asyncio.create_task(self._load(tenant))
            self._loading[tenant] = loading
        return await asyncio.shield(loading)

    def forget(self) -> None:
        """Believe nothing any more, not even what is being read just now."""
        self._kept.clear()
        self._loading.clear()

    async def _load(self, tenant: Tenant) -> Limits:
        task = asyncio.current_task()
        fresh_until = time.monotonic() + self._lifetime
        subjects = (tenant.user_id, tenant.organization_id)
        try:
            async with self._database.system(autocommit=True) as tx:
                quotas = await quota_store.get_quotas(tx, tenant.organization_id, subjects)
            user, organization = (quotas.get(subject, Quota(subject)) for subject in subjects)
            limits = Limits(user, organization, fresh_until)
            if self._loading.get(tenant) is task:
                if len(self._kept) >= _MOST_KEPT:
                    self._kept.clear()
                self._kept[tenant] = limits
            return limits
        finally:
            if self._loading.get(tenant) is task:
                del self._loading[tenant]
