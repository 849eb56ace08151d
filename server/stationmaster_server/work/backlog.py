"""The bound of the queue, for each organization: none can fill the queue for the others."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import QuotaViolation, Reason, ResourceExhausted
from stationmaster_server.work import store

_FRESH_SECONDS = 1.0
_REMEMBERED = 10_000
_RETRY_AFTER = timedelta(seconds=5)


class Backlog:
    """Counts what waits. Between two counts, a second apart, it counts its own submissions only.

    So several servers may together exceed the limit by what they submit within a second.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: dict[UUID, tuple[float, int]] = {}

    async def check(self, tx: Transaction, organization_id: UUID, adding: int) -> None:
        """ResourceExhausted when `adding` more items do not fit."""
        now = time.monotonic()
        counted_at, count = self._counts.get(organization_id, (0.0, self._limit))
        if now - counted_at > _FRESH_SECONDS or count + adding > self._limit:
            count = await store.count_queued(tx, organization_id, self._limit)
            counted_at = now
            if count + adding > self._limit:
                raise ResourceExhausted(
                    Reason.QUEUE_FULL,
                    f"the queue holds {count} items and takes {self._limit} at most",
                    QuotaViolation(f"organizations/{organization_id}", f"at most {self._limit} queued items"),
                    retry_after=_RETRY_AFTER,
                )
        if len(self._counts) > _REMEMBERED:
            self._counts.clear()
        self._counts[organization_id] = (counted_at, count + adding)
