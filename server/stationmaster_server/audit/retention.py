"""Forgets what events said once their time is over, and tells of it; that they were there stays in the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from stationmaster_server.audit import retention_store
from stationmaster_server.audit.model import AuditEntry, Category
from stationmaster_server.audit.retention_store import Forgotten
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.partitions import drop_partitions
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity.system import system_caller

BATCH = 5_000
_ACTION = "audit.forget"


class Retention:
    """Deletes bodies and salts of events that are older than their category is kept.

    `deleted` counts events that were deleted one by one, `dropped` months that were dropped whole.
    """

    def __init__(self, database: Database, audit: AuditLog, keep: Mapping[Category, timedelta]) -> None:
        """`keep`: categories that are not kept for ever."""
        self._database = database
        self._audit = audit
        self._keep = keep
        self.deleted = 0
        self.dropped = 0

    async def run(self) -> None:
        """Drop the months in which every category is past its time, then delete what is left, in batches."""
        if set(self._keep) == set(Category):
            async with self._database.system() as tx:
                oldest = max(self._keep.values())
                if not await retention_store.any_waiting(tx, oldest):
                    forgotten = await retention_store.of_whole_months(tx, oldest, telling=_ACTION)
                    dropped = await drop_partitions(tx, "audit_events", oldest)
                    if dropped:
                        await self._tell(tx, forgotten, oldest)
                    self.dropped += dropped
        for category, keep in self._keep.items():
            deleted = BATCH
            while deleted == BATCH:  # a transaction each, so that none holds many rows
                async with self._database.system() as tx:
                    forgotten = await retention_store.delete(tx, category, keep, BATCH, telling=_ACTION)
                    await self._tell(tx, forgotten, keep, category)
                deleted = sum(each.events for each in forgotten)
                self.deleted += deleted

    async def _tell(
        self, tx: Transaction, forgotten: Sequence[Forgotten], keep: timedelta, category: Category | None = None
    ) -> None:
        """An event for each organization; none of the forgetting of such events alone, or there were no end of them."""
        details = {"category": category.value if category else "all", "kept_days": keep / timedelta(days=1)}
        entries = [
            (
                system_caller(each.organization_id, each.organization_id),
                AuditEntry(
                    _ACTION,
                    f"organizations/{each.organization_id}",
                    category=Category.SYSTEM,
                    details={**details, "events": each.events},
                    on_behalf_of=f"organizations/{each.organization_id}",
                ),
            )
            for each in forgotten
            if each.tell
        ]
        if entries:
            await self._audit.write_many(tx, entries)
