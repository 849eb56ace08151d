"""Restores archives: read to the end first, then all files aside, then all of them into their places."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.requests import first_answer, recall, remember
from stationmaster_server.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    PreconditionViolation,
    QuotaViolation,
    Reason,
    ResourceExhausted,
)
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.storage import file_store
from stationmaster_server.storage.access import home_of, owner_of, require_open
from stationmaster_server.storage.archives import restore_store, sources
from stationmaster_server.storage.archives.model import Member, Rules
from stationmaster_server.storage.archives.receiving import receive_all
from stationmaster_server.storage.archives.sources import Asked, Source
from stationmaster_server.storage.archives.turns import Turns
from stationmaster_server.storage.batch_store import Batch, Outcome
from stationmaster_server.storage.batches import Batches
from stationmaster_server.storage.faults import told
from stationmaster_server.storage.file_model import Change, ChangeKind, Owner, file_name, workspace_name
from stationmaster_server.storage.files import entry_of
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.places.place import Home, Place
from stationmaster_server.storage.places.threads import AT_ONCE, Threads, to_the_end, together

_KEEP = timedelta(minutes=1)
"""What a server that died has left aside is thrown away so much later, at the latest."""
_AT_A_TIME = 4
"""What archives claim to hold is in memory while they are read for the first time."""
_OF_ONE = 2
"""So many of these are of one organization."""
_WAITING = 32
"""So many more of it may wait."""
_PATIENCE = file_store.LEASE + timedelta(seconds=5)
"""How long to wait for other changes of the files, also for those of a server that died."""
_PAUSE = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class _Restore:
    """Files on their way into a workspace: each is an upload whose writer is the batch; its change has the same id."""

    caller: Caller
    owner: Owner
    batch: Batch
    plan: Sequence[Member]
    upload_ids: Sequence[UUID]

    @property
    def home(self) -> Home:
        """Whose files they are."""
        return self.batch.home

    @property
    def changes(self) -> list[Change]:
        """What is to be done."""
        return [
            Change(
                self.home,
                each,
                self.owner.user_id,
                ChangeKind.PUT,
                member.path,
                upload_id=each,
                decided=True,
                batch_id=self.batch.id,
            )
            for each, member in zip(self.upload_ids, self.plan, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Decided:
    """What is remembered of a restore: a repeat asks what has become of its batch."""

    batch_id: UUID


class Restoring:
    """RestoreWorkspace."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        quotas: Quotas,
        place: Place,
        batches: Batches,
        threads: Threads,
        rules: Rules,
        keep: timedelta,
    ) -> None:
        self._database = database
        self._audit = audit
        self._quotas = quotas
        self._place = place
        self._batches = batches
        self._threads = threads
        self._rules = rules
        self._keep = min(keep, _KEEP)
        self._turns = Turns(_AT_A_TIME, each=_OF_ONE, waiting=_WAITING)

    async def restore(self, caller: Caller, session_id: UUID, asked: Asked, *, overwrite: bool) -> None:
        """Restore an archive into a session's workspace. Raises as RestoreWorkspace in the contract says."""
        first = await first_answer(self._database, caller, _Decided)
        if first is not None:
            _require_all(await self._batches.outcome(home_of(caller, session_id), first.batch_id), session_id)
            return
        owner = await owner_of(self._database, caller, session_id)
        require_open(owner, session_id)
        source = await sources.find(self._database, caller, asked, self._rules)
        async with self._turns.one(caller.tenant.organization_id):
            plan = await sources.verify(self._place, self._threads, source)
        ids = [new_id() for _ in plan]
        batch = Batch(home_of(caller, session_id), new_id(), owner.user_id)
        restore = _Restore(caller, owner, batch, plan, ids)
        await self._find_all(restore, overwrite=overwrite)
        await self._begin(restore)
        try:
            async with self._batches.leased(batch, self._keep, decided=False):
                await receive_all(
                    self._place, self._threads, source, restore.home, dict(zip(restore.upload_ids, plan, strict=True))
                )
                entry = await self._decide(restore, source, overwrite=overwrite)
        except BaseException:
            await to_the_end(self._give_up(restore))
            raise
        _require_all(await self._batches.make(caller, batch, restore.changes, entry), session_id)

    async def _begin(self, restore: _Restore) -> None:
        """Room for all files."""
        caller, owner = restore.caller, restore.owner
        async with self._quotas.telling(), self._database.tenant(caller.tenant) as tx:
            tx.audited = True  # nobody sees anything of them until they are there, and that is told
            await restore_store.begin(tx, restore.batch, restore.upload_ids, restore.plan, self._keep)
            total = sum(member.size_bytes for member in restore.plan)
            await self._quotas.reserve_storage(tx, caller, owner.user_id, total)

    async def _decide(self, restore: _Restore, source: Source, *, overwrite: bool) -> AuditEntry:
        """From here on the files take their places, whatever becomes of this server."""
        await self._claim(restore)
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
            if await recall(tx, caller.tenant, caller.request_key, _Decided) is not None:
                raise _busy(restore)
            if not await restore_store.decide(tx, restore.batch, len(restore.plan)):
                raise _busy(restore)
            await self._audit.write(tx, caller, entry)
            await remember(tx, caller.tenant, caller.request_key, _Decided(restore.batch.id))
        return entry

    async def _claim(self, restore: _Restore) -> None:
        """Nobody else changes the files until it is decided. Raises Aborted(CONCURRENT_CHANGE)."""
        for _ in range(_PATIENCE // _PAUSE):
            async with self._database.tenant(restore.caller.tenant) as tx:
                tx.audited = True  # nothing has changed yet
                await file_store.lock_workspace(tx, restore.home, restore.owner.user_id)
                if not await file_store.changing(tx, restore.home):
                    if not await restore_store.claim(tx, restore.batch, self._keep):
                        raise _busy(restore)
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
            left = await restore_store.give_up(tx, restore.batch)
        for upload_id in left:
            await self._place.discard(home, upload_id)
        async with self._database.system() as tx:
            reserved = await restore_store.forget(tx, home, left)
            await self._quotas.count_storage(tx, home.organization_id, restore.owner.user_id, reserved=-reserved)


def _require_all(outcome: Outcome, session_id: UUID) -> None:
    """All files are in their places. Raises FailedPrecondition(FILE_REFUSED), ResourceExhausted(STORAGE_FULL)."""
    if not outcome.failed:
        return
    name = workspace_name(session_id)
    text = f"{outcome.failed} of the files could not take their places in {name!r}, the others did: {outcome.error}"
    if outcome.reason == Reason.STORAGE_FULL:
        violation = QuotaViolation("server", "the disk is full")
        raise ResourceExhausted(Reason.STORAGE_FULL, text, violation, retry_after=timedelta(minutes=1))
    advice = "remove what is in the way, then restore again with overwrite and another request_id"
    raise FailedPrecondition(Reason.FILE_REFUSED, text, PreconditionViolation("FILE", name, advice))


def _busy(restore: _Restore) -> Aborted:
    name = workspace_name(restore.home.session_id)
    return Aborted(Reason.CONCURRENT_CHANGE, f"files of {name!r} are just being changed; try again")
