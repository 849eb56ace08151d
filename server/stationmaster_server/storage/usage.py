"""How much workspaces hold, and whom it counts for."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import NotFound
from stationmaster_server.identity import quota_store
from stationmaster_server.identity import store as identity_store
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.storage import file_store
from stationmaster_server.storage.access import home_of, no_workspace, owner_within
from stationmaster_server.storage.archives import archive_store
from stationmaster_server.storage.file_model import StorageUsage, WorkspaceInfo
from stationmaster_server.storage.places.place import Home, Place

_BATCH = 20
_AGAIN = timedelta(seconds=2)


class Usage:
    """Tells what is stored, and counts again what may have changed otherwise than by RPC."""

    def __init__(self, database: Database, quotas: Quotas, place: Place) -> None:
        self._database = database
        self._quotas = quotas
        self._place = place

    async def workspace(self, caller: Caller, session_id: UUID) -> WorkspaceInfo:
        """What a workspace holds. Raises NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            owner = await owner_within(tx, caller, session_id, no_workspace(session_id))
            return await file_store.workspace(tx, home_of(caller, session_id), owner.user_id)

    async def of(self, caller: Caller, subject_id: UUID, *, organization: bool) -> StorageUsage:
        """What a user or the organization stores. Raises NotFound."""
        home = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant, read=True) as tx:
            if organization:
                there = subject_id == home
            else:
                there = await identity_store.get_user(tx, home, subject_id) is not None
            if not there:
                subject = "organizations" if organization else "users"
                raise NotFound("StorageUsage", f"{subject}/{subject_id}/storageUsage")
            stored = await quota_store.get_stored(tx, home, subject_id)
            quota = (await quota_store.get_quotas(tx, home, [subject_id])).get(subject_id)
            whose = None if organization else subject_id
            files, workspaces = await file_store.files_of(tx, home, whose)
            archived, archives = await archive_store.stored(tx, home, whose)
        limit = None if quota is None else quota.max_storage_bytes
        return StorageUsage(stored.used, stored.reserved, limit, files, workspaces, archived, archives)

    async def measure(self, home: Home, user_id: UUID) -> bool:
        """Count all files of the workspace of a user's session; False when changes came between."""
        async with self._database.system(autocommit=True) as tx:
            before = await file_store.revision(tx, home)
        there = await self._place.measure(home)
        async with self._database.system() as tx:
            counted = await file_store.lock_workspace(tx, home, user_id)
            if (before and counted.revision != before) or await file_store.changing(tx, home):
                await file_store.measure_later(tx, home, user_id, _AGAIN)
                return False
            more = there.used_bytes - counted.used_bytes
            await file_store.measured(tx, home, there)
            await self._quotas.count_storage(tx, home.organization_id, counted.user_id, used=more)
        return True

    async def measure_due(self) -> None:
        """Count what is to be counted again."""
        async with self._database.system(autocommit=True) as tx:
            due = await file_store.to_measure(tx, _BATCH)
        for home, user_id in due:
            await self.measure(home, user_id)
