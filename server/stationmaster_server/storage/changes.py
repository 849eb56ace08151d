"""Changes of files, each made once and told of: decided in the database, then made in the place, then counted.

A disk takes no part in transactions. So a change is noted and audited first; from then on it must be made, and when
the server dies that was about to, another makes it. While it is noted no other change touches its paths.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Aborted, Reason, StationmasterError
from stationmaster_server.identity.model import AuditEntry, Outcome
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.identity.system import system_caller
from stationmaster_server.storage import batch_store, file_store, upload_store
from stationmaster_server.storage.beating import beating
from stationmaster_server.storage.faults import told
from stationmaster_server.storage.file_model import Change, ChangeKind, StoredFile, file_name, stored
from stationmaster_server.storage.places.place import Gone, Place, Published
from stationmaster_server.storage.places.threads import to_the_end

logger = logging.getLogger(__name__)

_BATCH = 50
_HEARTBEAT = file_store.LEASE.total_seconds() / 4

Decide = Callable[[Transaction], Awaitable[AuditEntry]]
"""Does what belongs to the decision, in its transaction; returns what the audit trail is told."""


class Changes:
    """Makes changes, and what servers that died left undone."""

    def __init__(
        self, database: Database, audit: AuditLog, quotas: Quotas, place: Place, *, keep_uploads: timedelta
    ) -> None:
        self._database = database
        self._audit = audit
        self._quotas = quotas
        self._place = place
        self._keep_uploads = keep_uploads
        self._making: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def holding(self, caller: Caller, change: Change) -> AsyncIterator[None]:
        """Nobody else changes its paths during the body. Raises Aborted(CONCURRENT_CHANGE).

        A body that does not come to `make` leaves nothing.
        """
        async with self._database.tenant(caller.tenant) as tx:
            tx.audited = True  # nothing has changed yet
            await file_store.lock_workspace(tx, change.home, change.user_id)
            if not await file_store.claim(tx, change):
                name = file_name(change.home.session_id, change.path)
                raise Aborted(
                    Reason.CONCURRENT_CHANGE, f"{name!r}, or what is around it, is just being changed; try again"
                )
        try:
            yield
        except BaseException:
            await to_the_end(self._release(change))
            raise

    async def make(self, caller: Caller, change: Change, decide: Decide) -> StoredFile | None:
        """Decide a change that is held, and make it. Once decided, it is made whether or not the caller waits.

        Raises what `decide` raises, and Aborted when the claim was lost; NotFound, FailedPrecondition and
        ResourceExhausted when it turns out that it cannot be made, which the audit trail is told too.
        """
        async with self._database.tenant(caller.tenant) as tx:
            entry = await decide(tx)
            if not await file_store.decide(tx, change):
                raise Aborted(Reason.CONCURRENT_CHANGE, "this server was too slow, and another took over; try again")
            await self._audit.write(tx, caller, entry)
        task = asyncio.create_task(self._carry_out(caller, change, entry), name=f"file change {change.id}")
        self.keep(task)
        return await asyncio.shield(task)

    async def make_left(self) -> None:
        """Make what servers that died have left."""
        async with self._database.system(autocommit=True) as tx:
            await file_store.release_left(tx)
        while True:
            async with self._database.system(autocommit=True) as tx:
                left = await file_store.take_left(tx, _BATCH)
            for change in left:
                await self._make_left(change)
            if len(left) < _BATCH:
                return

    async def close(self, grace: timedelta) -> None:
        """Wait for what is being made; another server makes what takes too long."""
        if self._making:
            await asyncio.wait(self._making, timeout=grace.total_seconds())

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Have a task end in its own time: whoever began it may be gone."""
        self._making.add(task)
        task.add_done_callback(self._made)

    async def make_one(self, caller: Caller, change: Change, entry: AuditEntry, *, again: bool) -> Published | None:
        """Make a change that is decided, for somebody who then counts it. Raises as `make`, and OSError."""
        return (await self._try(caller, change, entry, again=again))[0]

    async def _make_left(self, change: Change) -> None:
        caller = system_caller(change.home.organization_id, change.user_id, request_id="recovery")
        entry = AuditEntry(f"file.{change.kind.lower()}", file_name(change.home.session_id, change.path))
        try:
            await self._carry_out(caller, change, entry, again=True)
        except (StationmasterError, OSError) as error:
            logger.warning("a change of a file that was left could not be made: %s", error)

    def _made(self, task: asyncio.Task[Any]) -> None:
        self._making.discard(task)
        if not task.cancelled():
            task.exception()  # seen: its caller may be gone

    async def _carry_out(
        self, caller: Caller, change: Change, entry: AuditEntry, *, again: bool = False
    ) -> StoredFile | None:
        async with self._leased(change):
            published, removed = await self._try(caller, change, entry, again=again)
        async with self._database.system() as tx:
            if not await file_store.end(tx, change):
                return None  # another server has come before us
            file = await self.count(tx, change, published, removed)
            if again or not (published is None or published.known):
                await file_store.measure_later(tx, change.home, change.user_id, timedelta(0))
            return file

    async def _try(
        self, caller: Caller, change: Change, entry: AuditEntry, *, again: bool
    ) -> tuple[Published | None, int | None]:
        """As `_touch_place`. What cannot be made is not tried again, and the audit trail is told."""
        try:
            with told(file_name(change.home.session_id, change.path)):
                return await self._touch_place(change, again=again)
        except (StationmasterError, OSError) as error:
            await self._failed(caller, change, entry, error)
            raise

    async def _failed(
        self, caller: Caller, change: Change, entry: AuditEntry, error: StationmasterError | OSError
    ) -> None:
        reason = error.reason if isinstance(error, StationmasterError) else Reason.INTERNAL
        if reason is not Reason.STORAGE_UNAVAILABLE:  # else it is made when the place is back
            failed = replace(entry, outcome=Outcome.FAILED, reason=reason.value)
            await self._undo(caller, change, failed, str(error))

    async def _touch_place(self, change: Change, *, again: bool) -> tuple[Published | None, int | None]:
        """What came to its place, or how many bytes were removed. `again`: a server may have done it, and then died."""
        home, names = change.home, change.path.split("/")
        if change.kind is ChangeKind.DELETE:
            found = await self._place.find(home, names) if again else None
            if again and (found is None or found.etag != change.etag):
                return None, None  # it was removed, and perhaps another has come since
            return None, await self._place.remove(home, names)
        try:
            if change.kind is ChangeKind.MOVE:
                return await self._place.move(home, names, change.target.split("/")), None
            return await self._place.publish(home, _upload_of(change), names), None
        except Gone:
            raise
        except FileNotFoundError:
            come = again or change.kind is ChangeKind.PUT  # by another server, while this one was taken for dead
            found = await self._place.find(home, (change.target or change.path).split("/")) if come else None
            if found is None:
                raise
            return Published(found, None, known=False), None

    async def count(
        self, tx: Transaction, change: Change, published: Published | None, removed: int | None
    ) -> StoredFile | None:
        """Count what was done, and keep the checksum of what came to its place."""
        home, sha256, reserved = change.home, "", 0
        used, files = (0, 0) if removed is None else (-removed, -1)
        if change.kind is ChangeKind.MOVE:
            known = await file_store.checksums(tx, home, [change.path])
            sha256 = known.get((change.path, change.etag), "")
        await file_store.forget_checksum(tx, home, change.path)
        file = None if published is None else stored(home, published.found, sha256)
        if file is not None and change.kind is ChangeKind.PUT:
            file, reserved = await self._end_upload(tx, change, file)
            used, files = file.size_bytes or 0, 1
        if published is not None and published.replaced_bytes is not None:
            used, files = used - published.replaced_bytes, files - 1
        if file is not None:
            await file_store.keep_checksum(tx, home, file.path, file.etag, file.sha256)
        await file_store.count(tx, home, change.user_id, used=used, files=files)
        await self._quotas.count_storage(tx, home.organization_id, change.user_id, used=used, reserved=-reserved)
        return file

    async def _end_upload(self, tx: Transaction, change: Change, file: StoredFile) -> tuple[StoredFile, int]:
        """The file with its checksum, and how much was set aside for it."""
        upload = await upload_store.get(tx, change.home, _upload_of(change), lock=True)
        if upload is None:
            raise RuntimeError("an upload that is being finished was deleted")
        file = replace(file, sha256=upload.sha256)
        if upload.resumable:
            await upload_store.done(tx, change.home, upload.id, file, self._keep_uploads)
        else:
            await upload_store.delete(tx, change.home, upload.id)
        return file, upload.reserved_bytes

    async def _undo(self, caller: Caller, change: Change, failed: AuditEntry, why: str) -> None:
        if change.upload_id is not None:
            await self._place.discard(change.home, change.upload_id)
        async with self._database.system() as tx:
            if not await file_store.end(tx, change):
                return
            if change.upload_id is not None:
                upload = await upload_store.delete(tx, change.home, change.upload_id)
                if upload is not None:
                    await self._quotas.count_storage(
                        tx, change.home.organization_id, upload.user_id, reserved=-upload.reserved_bytes
                    )
            if change.batch_id is not None:
                await batch_store.failed(tx, change, failed.reason, why)
            await self._audit.write(tx, caller, failed, organization_id=change.home.organization_id)

    async def _release(self, change: Change) -> None:
        async with self._database.system(autocommit=True) as tx:
            await file_store.release(tx, change)

    @asynccontextmanager
    async def _leased(self, change: Change) -> AsyncIterator[None]:
        """Says again and again that a change is being made, while it is."""

        async def extend() -> None:
            async with self._database.system(autocommit=True) as tx:
                await file_store.extend(tx, change)

        async with beating(f"the lease of file change {change.id}", _HEARTBEAT, extend):
            yield


def _upload_of(change: Change) -> UUID:
    if change.upload_id is None:
        raise RuntimeError("a file is put without an upload")
    return change.upload_id
