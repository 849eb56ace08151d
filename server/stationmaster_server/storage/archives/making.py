"""Makes archives: the files of a workspace are read one after the other, packed, and received where files are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
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
    Reason,
)
from stationmaster_server.identity.excess import QuotaExceeded
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.storage.access import home_of, owner_of
from stationmaster_server.storage.archives import archive_store
from stationmaster_server.storage.archives.model import Archive, ArchiveFormat, ArchiveRefused, Rules, archive_name
from stationmaster_server.storage.archives.names import Names
from stationmaster_server.storage.archives.packing import Packer
from stationmaster_server.storage.archives.removing import Removing
from stationmaster_server.storage.faults import told
from stationmaster_server.storage.file_model import Owner, file_name, workspace_name
from stationmaster_server.storage.files import entry_of
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.places.place import PIECE_BYTES, Found, Home, Place, Reading, Receiver, Sealed
from stationmaster_server.storage.places.threads import Threads, to_the_end

_PAGE = 500
_ATTEMPTS = 5
_HEARTBEAT = archive_store.LEASE.total_seconds() / 4
_LEAST_STEP, _MOST_STEP = 1024 * 1024, 64 * 1024 * 1024
"""What is set aside at once for an archive: as much as it has, within these."""


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
        self.quotas = quotas
        self._place = place
        self._removing = removing
        self._threads = threads
        self._rules = rules

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
                room = _Room(self, task, receiver)
                with told(name):
                    await self._pack(task, packer, room)
                rest = await self._threads.run(packer.finish, name, int(datetime.now(UTC).timestamp()))
                await room.write(rest)
                sealed = await receiver.seal()
            await self._place.publish(task.home, part, names_of(task.format))
        return await self._ready(task, packer, sealed, overwrite=overwrite)

    async def _pack(self, task: _Task, packer: Packer, room: _Room) -> None:
        after, seen = "", Names(self._rules.most_files, distinct_in_case=False)
        while True:
            listed = await self._place.list(task.source, (), recursive=True, after=after, limit=_PAGE)
            for found in listed.found:
                self._check(task, packer, seen, found)
                await self._pack_file(task, packer, room, found.path)
            after = listed.after
            if not after:
                return

    async def _pack_file(self, task: _Task, packer: Packer, room: _Room, path: str) -> None:
        """One that is small is read whole before it is packed, and again when it was changed meanwhile."""
        for attempt in range(_ATTEMPTS):
            try:
                async with self._place.read(task.source, path.split("/")) as reading:
                    if (reading.found.size_bytes or 0) > PIECE_BYTES:
                        await self._pack_large(packer, room, reading)
                    else:
                        await self._pack_small(packer, reading)
                break
            except (FileNotFoundError, PathRefused):
                return  # it was there when we looked
            except Aborted:
                if attempt == _ATTEMPTS - 1 or packer.is_open:
                    raise
        while packer.is_full:
            await room.write(await self._threads.run(packer.drain))

    async def _pack_small(self, packer: Packer, reading: Reading) -> None:
        async with aclosing(reading.pieces(0)) as pieces:
            data = b"".join([piece async for piece in pieces])
        _begin_file(packer, reading.found)
        packer.add(data)
        packer.end()

    async def _pack_large(self, packer: Packer, room: _Room, reading: Reading) -> None:
        _begin_file(packer, reading.found)
        async with aclosing(reading.pieces(0)) as pieces:
            async for piece in pieces:
                await self._threads.run(packer.add, piece)
                await room.write(await self._threads.run(packer.drain))
        packer.end()

    def _check(self, task: _Task, packer: Packer, seen: Names, found: Found) -> None:
        rules, name = self._rules, file_name(task.source.session_id, found.path)
        if len(packer.members) >= rules.most_files:
            what = f"more than {rules.most_files:,} files: delete some, or raise storage.max_archive_files"
        elif packer.content_bytes + (found.size_bytes or 0) > rules.most_bytes:
            what = f"more than {rules.most_bytes:,} bytes: delete some files, or raise storage.max_archive_bytes"
        else:
            try:
                seen.add(found.path.split("/"))
            except ArchiveRefused as refused:
                what = f"too much: {refused.why}"
            else:
                return
        violation = PreconditionViolation("ARCHIVE_SIZE", name, "leave files out")
        raise FailedPrecondition(Reason.LIMIT_REACHED, f"with {name!r} the archive would hold {what}", violation)

    async def set_aside(self, task: _Task, more: int) -> None:
        """Of the quotas, for the archive."""
        async with self._database.tenant(task.caller.tenant) as tx:
            tx.audited = True  # with the archive
            if not await archive_store.touch(tx, task.home.organization_id, task.home.session_id, more):
                raise _lost(task)
            await self.quotas.reserve_storage(tx, task.caller, task.owner.user_id, more)

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
            await self.quotas.count_storage(
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
        await self._removing.remove(left)

    @asynccontextmanager
    async def _leased(self, task: _Task) -> AsyncIterator[None]:
        """Says again and again that the archive is being made, while it is."""

        async def extend() -> None:
            while True:
                await asyncio.sleep(_HEARTBEAT)
                async with self._database.system(autocommit=True) as tx:
                    await archive_store.touch(tx, task.home.organization_id, task.home.session_id)

        beating = asyncio.create_task(extend(), name=f"lease of archive {task.home.session_id}")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)


class _Room:
    """A receiver that is given no byte before it is set aside."""

    def __init__(self, making: Making, task: _Task, receiver: Receiver) -> None:
        self._making = making
        self._task = task
        self._receiver = receiver
        self._room = 0

    async def write(self, data: bytes) -> None:
        """Add bytes. Raises ResourceExhausted(QUOTA_EXCEEDED)."""
        for at in range(0, len(data), PIECE_BYTES):
            piece = data[at : at + PIECE_BYTES]
            needed = self._receiver.offset + len(piece) - self._room
            if needed > 0:
                self._room += await self._more(needed)
            await self._receiver.write(piece)

    async def _more(self, needed: int) -> int:
        """As much as the archive has, so that this is seldom; as little as is needed where there is not more."""
        wanted = min(max(self._room, _LEAST_STEP), _MOST_STEP)
        if wanted > needed:
            with suppress(QuotaExceeded):
                await self._making.set_aside(self._task, wanted)
                return wanted
        async with self._making.quotas.telling():
            await self._making.set_aside(self._task, needed)
        return needed


def names_of(form: ArchiveFormat) -> tuple[str, ...]:
    """The names of an archive in its home."""
    return (f"archive{form.ending}",)


def _begin_file(packer: Packer, found: Found) -> None:
    changed_at = 0 if found.changed_at is None else max(0, int(found.changed_at.timestamp()))
    packer.begin(found.path, found.size_bytes or 0, changed_at)


def _lost(task: _Task) -> Aborted:
    name = workspace_name(task.source.session_id)
    return Aborted(
        Reason.CONCURRENT_CHANGE, f"another call has archived {name!r}, or this one took too long; try again"
    )
