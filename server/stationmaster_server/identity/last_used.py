"""When keys were last used: noted at most once a minute each, in the background, many at once."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.identity import key_store
from stationmaster_server.resilience.loops import attempt

_EVERY = timedelta(minutes=1)
_MOST_KEPT = 50_000


class LastUsed:
    """Collects the keys that were used and writes what queued while its last write was in flight."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[UUID, float] = {}
        self._pending: set[tuple[UUID, UUID]] = set()
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="last use of keys")

    async def close(self) -> None:
        """Write what waits, and stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    def touch(self, organization_id: UUID, key_id: UUID, last_used_at: datetime | None) -> None:
        """Note that a key is used now; `last_used_at` is what the database said when it was last asked."""
        now = time.monotonic()
        if now < self._noted.get(key_id, 0.0):
            return
        if len(self._noted) >= _MOST_KEPT:
            self._noted.clear()
        self._noted[key_id] = now + _EVERY.total_seconds()
        if last_used_at is None or datetime.now(UTC) - last_used_at > _EVERY:
            self._pending.add((organization_id, key_id))
            self._wake.set()

    async def _run(self) -> None:
        while self._pending or not self._closing:
            await self._wake.wait()
            self._wake.clear()
            if self._pending:
                # If it fails, a minute's knowledge of who used a key is not worth more than a line of log.
                await attempt("note the use of keys", self._write)

    async def _write(self) -> None:
        pending, self._pending = self._pending, set()
        async with self._database.system(autocommit=True) as tx:
            await key_store.touch_keys(tx, pending)
