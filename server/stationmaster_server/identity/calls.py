"""Calls per hour: servers take blocks from the database, so that the cap is exact and most calls cost no round trip."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.identity import quota_store
from stationmaster_server.identity.model import Quota

_MOST_KEPT = 50_000


class _Meter:
    """What this server holds of one subject's hour, under one revision of its quota."""

    __slots__ = ("calls", "ends", "lock", "revision", "used_up")

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.calls = 0
        self.used_up = False  # the database had no more
        self.ends = 0.0  # when the hour that all this is about ends, by time.monotonic()
        self.lock = asyncio.Lock()

    def left(self) -> float:
        """Seconds until that hour ends; zero once it has, and what the meter holds counts no more."""
        return max(0.0, self.ends - time.monotonic())


class CallMeters:
    """Admits calls of subjects that have a limit of calls per hour."""

    def __init__(self, database: Database, *, largest_block: int = 200) -> None:
        self._database = database
        self._largest_block = largest_block
        self._meters: dict[UUID, _Meter] = {}

    async def take(self, organization_id: UUID, quota: Quota) -> timedelta | None:
        """Admit one call: None. Or, when the limit is reached, the time until the hour ends."""
        meter = self._meter(quota)
        if not meter.calls or not meter.left():
            async with meter.lock:
                await self._fill(meter, organization_id, quota)
                if not meter.calls:
                    return timedelta(seconds=max(meter.left(), 0.001))
                meter.calls -= 1
                return None
        meter.calls -= 1
        return None

    def give_back(self, quota: Quota) -> None:
        """Undo one `take`, of a call that another limit refused."""
        meter = self._meters.get(quota.subject_id)
        if meter is not None and meter.revision == quota.revision and meter.left():
            meter.calls += 1

    def _meter(self, quota: Quota) -> _Meter:
        meter = self._meters.get(quota.subject_id)
        # What was taken under another limit is let go: admitting too few is allowed, too many is not.
        if meter is None or meter.revision != quota.revision:
            if len(self._meters) >= _MOST_KEPT:
                self._meters.clear()
            meter = self._meters[quota.subject_id] = _Meter(quota.revision)
        return meter

    async def _fill(self, meter: _Meter, organization_id: UUID, quota: Quota) -> None:
        """Take a block, unless there are calls left or the hour is known to be used up."""
        limit = quota.max_calls_per_hour
        if limit is None or (meter.left() and (meter.calls or meter.used_up)):
            return
        asked = time.monotonic()
        async with self._database.system(autocommit=True) as tx:
            block = await quota_store.take_calls(
                tx, organization_id, quota.subject_id, limit=limit, largest=self._largest_block
            )
        meter.calls = block.calls
        meter.used_up = not block.calls
        meter.ends = asked + block.hour_ends_in.total_seconds()
