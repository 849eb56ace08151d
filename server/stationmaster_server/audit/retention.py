"""Forgets what events said once their time is over; that they were there stays in the tree."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from stationmaster_server.audit import retention_store
from stationmaster_server.audit.model import Category
from stationmaster_server.db.engine import Database
from stationmaster_server.db.partitions import drop_partitions

BATCH = 5_000


class Retention:
    """Deletes bodies and salts of events that are older than their category is kept.

    `deleted` counts events that were deleted one by one, `dropped` months that were dropped whole.
    """

    def __init__(self, database: Database, keep: Mapping[Category, timedelta]) -> None:
        """`keep`: categories that are not kept for ever."""
        self._database = database
        self._keep = keep
        self.deleted = 0
        self.dropped = 0

    async def run(self) -> None:
        """Drop the months in which every category is past its time, then delete what is left, in batches."""
        if set(self._keep) == set(Category):
            async with self._database.system() as tx:
                oldest = max(self._keep.values())
                if not await retention_store.any_waiting(tx, oldest):
                    self.dropped += await drop_partitions(tx, "audit_events", oldest)
        for category, keep in self._keep.items():
            deleted = BATCH
            while deleted == BATCH:  # a transaction each, so that none holds many rows
                async with self._database.system() as tx:
                    deleted = await retention_store.delete(tx, category, keep, BATCH)
                self.deleted += deleted
