"""Archives that are no more: their bytes are removed, then what these counted for is free."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import StationmasterError
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.identity.system import system_caller
from stationmaster_server.storage.archives import archive_store
from stationmaster_server.storage.archives.model import Archive, Left, archive_name
from stationmaster_server.storage.places.place import Home, Place

logger = logging.getLogger(__name__)

_BATCH = 50


class Removing:
    """Whoever deletes an archive notes that in the database, and then has it removed here."""

    def __init__(
        self, database: Database, audit: AuditLog, quotas: Quotas, place: Place, *, retention: timedelta
    ) -> None:
        self._database = database
        self._audit = audit
        self._quotas = quotas
        self._place = place
        self._retention = retention

    async def remove(self, left: Sequence[Left]) -> None:
        """Remove what is left of archives. What cannot be removed now is tried again."""
        for each in left:
            try:
                await self._remove(each)
            except (StationmasterError, OSError) as error:
                logger.warning("%s could not be removed yet: %s", archive_name(each.session_id), error)

    async def remove_left(self) -> None:
        """Remove what servers that died were making or removing."""
        while True:
            async with self._database.system(autocommit=True) as tx:
                left = await archive_store.take_left(tx, _BATCH)
            await self.remove(left)
            if len(left) < _BATCH:
                return

    async def remove_old(self) -> int:
        """Delete the archives that are past their time; returns how many."""
        total = 0
        while True:
            left: list[Left] = []
            async with self._database.system() as tx:
                expired = await archive_store.expired(tx, self._retention, _BATCH)
                for organization_id, archive in expired:
                    left += await archive_store.give_up(tx, organization_id, [archive.id])
                    caller = system_caller(organization_id, archive.user_id, request_id="retention")
                    entry = deletion(archive, category=Category.SYSTEM, reason="retention")
                    await self._audit.write(tx, caller, entry)
            await self.remove(left)
            total += len(expired)
            if len(expired) < _BATCH:
                return total

    async def _remove(self, left: Left) -> None:
        await self._place.clear(Home(left.organization_id, left.id))
        async with self._database.system() as tx:
            counted = await archive_store.removed(tx, left)
            if counted is not None:
                used, reserved = counted
                await self._quotas.count_storage(tx, left.organization_id, left.user_id, used=-used, reserved=-reserved)


def deletion(
    archive: Archive, *, category: Category = Category.BUSINESS, reason: str = "", on_behalf_of: str = ""
) -> AuditEntry:
    """What the trail is told."""
    details = {"size_bytes": archive.size_bytes, "sha256": archive.sha256, "file_count": archive.file_count}
    name = archive_name(archive.session_id)
    return AuditEntry(
        "archive.delete", name, category=category, reason=reason, details=details, on_behalf_of=on_behalf_of
    )
