"""Makes archives: the files of a workspace are read one after the other, packed, and received where files are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.requests import first_answer, recall, remember
from stationmaster_server.errors import (
    Aborted,
    AlreadyExists,
    Reason,
)
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.storage.access import home_of, owner_of
from stationmaster_server.storage.archives import archive_store
from stationmaster_server.storage.archives.filling import Filling, Room
from stationmaster_server.storage.archives.model import Archive, ArchiveFormat, Rules, archive_name, names_of
from stationmaster_server.storage.archives.packing import Packer
from stationmaster_server.storage.archives.removing import Removing
from stationmaster_server.storage.beating import beating
from stationmaster_server.storage.faults import told
from stationmaster_server.storage.file_model import Owner, workspace_name
from stationmaster_server.storage.files import entry_of
from stationmaster_server.storage.places.place import Home, Place, Sealed
from stationmaster_server.storage.places.threads import Threads, to_the_end

_HEARTBEAT = archive_store.LEASE.total_seconds() / 4


@dataclass(frozen=True, slots=True)
class _Task:
    """An archive to be made: of whose workspace, and its own home."""

    caller: Caller
    owner: Owner
    source: Home
    home: Home
    format: ArchiveFormat


class Making:
    """ArchiveWorkspace."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        quotas: Quotas,
        place: Place,
        removing: Removing,
        threads: Threads,
        rules: Rules,
    ) -> None:
        self._database = database
        self._audit = audit
        self._quotas = quotas
        self._place = place
        self._filling = Filling(place, threads, rules)
        self._removing = removing
        self._threads = threads

    async def archive(self, caller: Caller, session_id: UUID, form: ArchiveFormat, *, overwrite: bool) -> Archive:
        """Archive a workspace. Raises as ArchiveWorkspace in the contract says."""
        answer = await first_answer(self._database, caller, Archive)
        if answer is not None:
            return answer
        owner = await owner_of(self._database, caller, session_id)
        task = _Task(caller, owner, home_of(caller, session_id), home_of(caller, new_id()), form)
        await self._begin(task, overwrite=overwrite)
        try:
            async with self._leased(task):
                return await self._make(task, overwrite=overwrite)
        except BaseException:
            await to_the_end(self._give_up(task))
            raise

    async def _begin(self, task: _Task, *, overwrite: bool) -> None:
        session_id, organization_id = task.source.session_id, task.home.organization_id
        async with self._database.tenant(task.caller.tenant) as tx:
            tx.audited = True  # nobody sees anything of it until it is there, and that is told
            if not overwrite and await archive_store.get(tx, organization_id, None, session_id) is not None:
                raise AlreadyExists("Archive", archive_name(session_id))
            user_id, archive_id, key = task.owner.user_id, task.home.session_id, task.caller.request_key
            request_id = None if key is None else key.request_id
            if not await archive_store.begin(
                tx, organization_id, session_id, user_id, archive_id, task.format, request_id
            ):
                name = workspace_name(session_id)
                raise Aborted(Reason.CONCURRENT_CHANGE, f"{name!r} is just being archived; try again in a moment")

    async def _make(self, task: _Task, *, overwrite: bool) -> Archive:
        packer, part = Packer(task.format), new_id()
        name = workspace_name(task.source.session_id)
        with told(archive_name(task.source.session_id)):
            async with self._place.receive(task.home, part, 0) as receiver:
                room = Room(self._quotas, partial(self._set_aside, task), receiver)
                with told(name):
                    await self._filling.fill(task.source, packer, room)
                rest = await self._threads.run(packer.finish, name, int(datetime.now(UTC).timestamp()))
                await room.write(rest)
                sealed = await receiver.seal()
            await self._place.publish(task.home, part, names_of(task.format))
        return await self._ready(task, packer, sealed, overwrite=overwrite)

    async def _set_aside(self, task: _Task, more: int) -> None:
        """Of the quotas, for the archive."""
        async with self._database.tenant(task.caller.tenant) as tx:
            tx.audited = True  # with the archive
            if not await archive_store.touch(tx, task.home.organization_id, task.home.session_id, more):
                raise _lost(task)
            await self._quotas.reserve_storage(tx, task.caller, task.owner.user_id, more)

    async def _ready(self, task: _Task, packer: Packer, sealed: Sealed, *, overwrite: bool) -> Archive:
        """The archive is there, in place of the one before, and counted."""
        caller, organization_id, archive_id = task.caller, task.home.organization_id, task.home.session_id
        async with self._database.tenant(caller.tenant) as tx:
            if await recall(tx, caller.tenant, caller.request_key, Archive) is not None:
                raise _lost(task)
            before = await archive_store.get(tx, organization_id, None, task.source.session_id)
            if before is not None and not overwrite:
                raise AlreadyExists("Archive", archive_name(task.source.session_id))
            left = [] if before is None else await archive_store.give_up(tx, organization_id, [before.id])
            made = await archive_store.ready(
                tx,
                organization_id,
                archive_id,
                size=sealed.size_bytes,
                content=packer.content_bytes,
                files=len(packer.members),
                sha256=sealed.sha256,
            )
            if made is None:
                raise _lost(task)
            archive, reserved = made
            await self._quotas.count_storage(
                tx, organization_id, archive.user_id, used=archive.size_bytes, reserved=-reserved
            )
            details = {"size_bytes": archive.size_bytes, "sha256": archive.sha256, "file_count": archive.file_count}
            name = archive_name(task.source.session_id)
            entry = entry_of("archive.create", name, caller, task.owner, {**details, "replaced": before is not None})
            await self._audit.write(tx, caller, entry)
            await remember(tx, caller.tenant, caller.request_key, archive)
        await self._removing.remove(left)
        return archive

    async def _give_up(self, task: _Task) -> None:
        async with self._database.system(autocommit=True) as tx:
            left = await archive_store.abandon(tx, task.home.organization_id, task.home.session_id)
            kept = not left and await archive_store.is_ready(tx, task.home.organization_id, task.home.session_id)
        await self._removing.remove(left)
        if not left and not kept:  # somebody else gave it up, and may have removed it before the last of it was written
            await self._place.clear(task.home)

    @asynccontextmanager
    async def _leased(self, task: _Task) -> AsyncIterator[None]:
        """Says again and again that the archive is being made, while it is."""

        async def extend() -> None:
            async with self._database.system(autocommit=True) as tx:
                await archive_store.touch(tx, task.home.organization_id, task.home.session_id)

        async with beating(f"the lease of archive {task.home.session_id}", _HEARTBEAT, extend):
            yield


def _lost(task: _Task) -> Aborted:
    name = workspace_name(task.source.session_id)
    text = f"{name!r} was not archived: another call does it, or this server could not say in time that it goes on"
    return Aborted(Reason.CONCURRENT_CHANGE, f"{text}; try again")
