"""Restores archives: read to the end first, then all files aside, then all of them into their places."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.requests import first_answer, recall, remember
from stationmaster_server.errors import Aborted, AlreadyExists, Reason
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.storage import file_store
from stationmaster_server.storage.access import home_of, owner_of, require_open
from stationmaster_server.storage.archives import restore_store, sources
from stationmaster_server.storage.archives.model import Member, Rules
from stationmaster_server.storage.archives.receiving import receive_all
from stationmaster_server.storage.archives.sources import Asked, Source
from stationmaster_server.storage.beating import beating
from stationmaster_server.storage.changes import Changes
from stationmaster_server.storage.faults import told
from stationmaster_server.storage.file_model import Change, ChangeKind, Owner, file_name, workspace_name
from stationmaster_server.storage.files import Done, entry_of
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.places.place import Home, Place
from stationmaster_server.storage.places.threads import AT_ONCE, Threads, to_the_end, together

_KEEP = timedelta(minutes=1)
"""What a server that died has left aside is thrown away so much later."""
_AT_A_TIME = 4
"""What archives claim to hold is in memory while they are read for the first time."""
_PATIENCE = file_store.LEASE + timedelta(seconds=5)
"""How long to wait for other changes of the files, also for those of a server that died."""
_PAUSE = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class _Restore:
    """Files on their way into a workspace, each an upload of this writer; its change has the same id."""

    caller: Caller
    owner: Owner
    home: Home
    writer: UUID
    plan: Sequence[Member]
    upload_ids: Sequence[UUID]

    @property
    def changes(self) -> list[Change]:
        """What is to be done."""
        return [
            Change(self.home, each, self.owner.user_id, ChangeKind.PUT, member.path, upload_id=each, decided=True)
            for each, member in zip(self.upload_ids, self.plan, strict=True)
        ]


class Restoring:
    """RestoreWorkspace."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        quotas: Quotas,
        place: Place,
        changes: Changes,
        threads: Threads,
        rules: Rules,
        keep: timedelta,
    ) -> None:
        self._database = database
        self._audit = audit
        self._quotas = quotas
        self._place = place
        self._changes = changes
        self._threads = threads
        self._rules = rules
        self._keep = min(keep, _KEEP)
        self._reading = asyncio.Semaphore(_AT_A_TIME)

    async def restore(self, caller: Caller, session_id: UUID, asked: Asked, *, overwrite: bool) -> None:
        """Restore an archive into a session's workspace. Raises as RestoreWorkspace in the contract says."""
        if await first_answer(self._database, caller, Done) is not None:
            return
        owner = await owner_of(self._database, caller, session_id)
        require_open(owner, session_id)
        source = await sources.find(self._database, caller, asked, self._rules)
        async with self._reading:
            plan = await sources.verify(self._place, self._threads, source)
        ids = [new_id() for _ in plan]
        restore = _Restore(caller, owner, home_of(caller, session_id), new_id(), plan, ids)
        await self._find_all(restore, overwrite=overwrite)
        await self._begin(restore)
        try:
            async with self._kept(restore):
                await receive_all(
                    self._place, self._threads, source, restore.home, dict(zip(restore.upload_ids, plan, strict=True))
                )
                entry = await self._decide(restore, source, overwrite=overwrite)
        except BaseException:
            await to_the_end(self._give_up(restore))
            raise
        errors = await self._changes.make_all(caller, restore.changes, entry) if plan else []
        if errors:
            raise errors[0]

    async def _begin(self, restore: _Restore) -> None:
        """Room for all files."""
        caller, owner = restore.caller, restore.owner
        async with self._quotas.telling(), self._database.tenant(caller.tenant) as tx:
            tx.audited = True  # nobody sees anything of them until they are there, and that is told
            await restore_store.begin(
                tx, restore.home, owner.user_id, restore.writer, restore.upload_ids, restore.plan, self._keep
            )
            total = sum(member.size_bytes for member in restore.plan)
            await self._quotas.reserve_storage(tx, caller, owner.user_id, total)

    async def _decide(self, restore: _Restore, source: Source, *, overwrite: bool) -> AuditEntry:
        """From here on the files take their places, whatever becomes of this server."""
        await self._claim(restore)
        async with self._changes.leased(restore.home, restore.upload_ids):
            replaced = await self._find_all(restore, overwrite=overwrite)
            caller, name = restore.caller, workspace_name(restore.home.session_id)
            details = {
                "source": source.name,
                "file_count": len(restore.plan),
                "size_bytes": sum(member.size_bytes for member in restore.plan),
                "replaced": replaced,
            }
            entry = entry_of("archive.restore", name, caller, restore.owner, details)
            async with self._database.tenant(caller.tenant) as tx:
                if await recall(tx, caller.tenant, caller.request_key, Done) is not None:
                    raise _busy(restore)
                if not await restore_store.decide(tx, restore.home, restore.writer, restore.upload_ids):
                    raise _busy(restore)
                await self._audit.write(tx, caller, entry)
                await remember(tx, caller.tenant, caller.request_key, Done(name))
        return entry

    async def _claim(self, restore: _Restore) -> None:
        """Nobody else changes the files until it is decided. Raises Aborted(CONCURRENT_CHANGE)."""
        for _ in range(_PATIENCE // _PAUSE):
            async with self._database.tenant(restore.caller.tenant) as tx:
                tx.audited = True  # nothing has changed yet
                await file_store.lock_workspace(tx, restore.home, restore.owner.user_id)
                if not await file_store.changing(tx, restore.home):
                    await restore_store.claim(tx, restore.home, restore.writer)
                    return
            await asyncio.sleep(_PAUSE.total_seconds())
        raise _busy(restore)

    async def _find_all(self, restore: _Restore, *, overwrite: bool) -> int:
        """How many files are there already. Raises AlreadyExists, FailedPrecondition(FILE_REFUSED)."""
        replaced = 0
        for start in range(0, len(restore.plan), AT_ONCE):
            some = restore.plan[start : start + AT_ONCE]
            replaced += sum(await together(self._find(restore, each.path, overwrite) for each in some))
        return replaced

    async def _find(self, restore: _Restore, path: str, overwrite: bool) -> bool:
        name = file_name(restore.home.session_id, path)
        with told(name):
            found = await self._place.find(restore.home, path.split("/"))
            if found is not None and found.is_folder:
                raise PathRefused("it is a folder")
        if found is not None and not overwrite:
            raise AlreadyExists("File", name)
        return found is not None

    async def _give_up(self, restore: _Restore) -> None:
        """Throw away what has come, and free what was set aside for it. Nothing, once it is decided."""
        home = restore.home
        async with self._database.system() as tx:
            left = await restore_store.give_up(tx, home, restore.writer, restore.upload_ids)
        for upload_id in left:
            await self._place.discard(home, upload_id)
        async with self._database.system() as tx:
            reserved = await restore_store.forget(tx, home, left)
            await self._quotas.count_storage(tx, home.organization_id, restore.owner.user_id, reserved=-reserved)

    @asynccontextmanager
    async def _kept(self, restore: _Restore) -> AsyncIterator[None]:
        """Says again and again that what has come is still wanted, while it is."""

        async def touch() -> None:
            async with self._database.system(autocommit=True) as tx:
                await restore_store.touch(tx, restore.home, restore.writer, self._keep)

        async with beating(f"the lease of restore {restore.writer}", self._keep.total_seconds() / 4, touch):
            yield


def _busy(restore: _Restore) -> Aborted:
    name = workspace_name(restore.home.session_id)
    return Aborted(Reason.CONCURRENT_CHANGE, f"files of {name!r} are just being changed; try again")
