"""Uploads: room is set aside before bytes are taken, bytes wait aside until they are whole, then the file is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.requests import forget, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PreconditionViolation,
    Reason,
    StationmasterError,
)
from stationmaster_server.identity.excess import QuotaExceeded
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.identity.system import system_caller
from stationmaster_server.storage import paths, upload_store
from stationmaster_server.storage.access import home_of, no_workspace, owner_within, require_open
from stationmaster_server.storage.changes import Changes
from stationmaster_server.storage.faults import told
from stationmaster_server.storage.file_model import (
    Change,
    ChangeKind,
    Header,
    Owner,
    StoredFile,
    Upload,
    UploadState,
    file_name,
    upload_name,
)
from stationmaster_server.storage.files import check_etag, entry_of
from stationmaster_server.storage.heap import keeping
from stationmaster_server.storage.places.place import Home, Place, Receiver, Sealed
from stationmaster_server.storage.places.threads import to_the_end
from stationmaster_server.storage.streams import Streams

_LEAST_STEP, _MOST_STEP = 1024 * 1024, 64 * 1024 * 1024
"""What is set aside at once for an upload that does not say how large it will be: as much as it has, within these."""
_BATCH = 50


class Uploads:
    """Takes files in."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        quotas: Quotas,
        place: Place,
        changes: Changes,
        *,
        most_bytes: int,
        keep: timedelta,
    ) -> None:
        self._database = database
        self._audit = audit
        self._quotas = quotas
        self._place = place
        self._changes = changes
        self._most_bytes = most_bytes
        self._keep = keep
        self._streams = Streams[tuple[UUID, UUID]]()

    async def upload(self, caller: Caller, header: Header, chunks: AsyncIterator[bytes]) -> StoredFile:
        """Take a file in. The caller's request id is the upload's: one that broke off is gone on with, and one that is
        done is not done again.

        Raises as UploadFile in the contract says.
        """
        self._check_size(header, header.size_bytes or 0)
        upload_id = uuid4() if caller.request_key is None else caller.request_key.request_id
        async with self._streams.alone((header.home.session_id, upload_id)):
            owner, upload = await self._begin(caller, header, upload_id)
            if upload.file is not None:
                return upload.file
            try:
                return await self._take(caller, owner, header, upload, chunks)
            except BaseException as error:
                hopeless = not upload.resumable or _hopeless(error)
                clean = self._give_up_at_once if hopeless else self._leave_nothing_of_one_given_up
                await to_the_end(clean(caller, upload, header.home))
                raise

    async def get(self, caller: Caller, session_id: UUID, upload_id: UUID) -> tuple[Upload, int]:
        """An upload, and how much of it is kept. Raises NotFound."""
        missing = NotFound("Upload", upload_name(session_id, upload_id))
        home = home_of(caller, session_id)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            await owner_within(tx, caller, session_id, missing)
            upload = await upload_store.get(tx, home, upload_id)
        if upload is None or upload.state is UploadState.GIVEN_UP or not upload.resumable:
            raise missing
        if upload.state is UploadState.RECEIVING:
            return upload, await self._place.received(home, upload_id)
        return upload, upload.size_bytes or 0

    async def cancel(self, caller: Caller, session_id: UUID, upload_id: UUID) -> None:
        """Give an upload up. Raises NotFound, Aborted when it is ending or has ended."""
        name, home = upload_name(session_id, upload_id), home_of(caller, session_id)
        missing = NotFound("Upload", name)
        async with self._database.tenant(caller.tenant) as tx:
            if await recall(tx, caller.tenant, caller.request_key, UUID) is not None:
                return
            owner = await owner_within(tx, caller, session_id, missing)
            upload = await upload_store.get(tx, home, upload_id, lock=True)
            if upload is None or not upload.resumable:
                raise missing
            if upload.state in (UploadState.FINISHING, UploadState.DONE):
                raise Aborted(Reason.CONCURRENT_CHANGE, f"{name!r} is {upload.state}: its file is or will be there")
            await upload_store.give_up(tx, home, upload_id, uuid4())
            entry = entry_of("upload.cancel", name, caller, owner, {"file": file_name(session_id, upload.path)})
            await self._audit.write(tx, caller, entry)
            await remember(tx, caller.tenant, caller.request_key, upload_id)
        self._streams.end((session_id, upload_id))
        await self._forget(home, upload_id)

    async def give_up_expired(self) -> int:
        """Throw away what nobody went on with in time, and free what was set aside for it; returns how many."""
        total = 0
        while True:
            async with self._database.system() as tx:
                expired = await upload_store.take_expired(tx, uuid4(), _BATCH)
            for home, upload in expired:
                caller = system_caller(home.organization_id, upload.user_id, request_id="retention")
                details = {"file": file_name(home.session_id, upload.path)}
                name = upload_name(home.session_id, upload.id)
                entry = AuditEntry("upload.expire", name, category=Category.SYSTEM, details=details)
                await self._forget(home, upload.id, (caller, entry))
            total += len(expired)
            if len(expired) < _BATCH:
                return total

    async def _begin(self, caller: Caller, header: Header, upload_id: UUID) -> tuple[Owner, Upload]:
        """The upload, taken over by this stream, with room for all of it if it says how large it will be."""
        home = header.home
        async with self._quotas.telling(), self._database.tenant(caller.tenant) as tx:
            if await recall(tx, caller.tenant, caller.request_key, UUID) is None:
                await remember(tx, caller.tenant, caller.request_key, upload_id)
            tx.audited = True  # nobody sees anything of it until its file is there, and that is told
            owner = await owner_within(tx, caller, home.session_id, no_workspace(home.session_id))
            upload = await upload_store.get(tx, home, upload_id, lock=True)
            if upload is not None:
                _check_same(header, upload)
            if upload is not None and upload.state is UploadState.DONE:
                return owner, upload
            require_open(owner, home.session_id)
            upload = await self._taken(tx, caller, header, upload_id, owner, upload)
            missing = (header.size_bytes or 0) - upload.reserved_bytes
            if missing > 0:
                await upload_store.touch(tx, home, upload, missing, self._keep)
                await self._quotas.reserve_storage(tx, caller, owner.user_id, missing)
        return owner, replace(upload, reserved_bytes=upload.reserved_bytes + max(missing, 0))

    async def _taken(
        self, tx: Transaction, caller: Caller, header: Header, upload_id: UUID, owner: Owner, upload: Upload | None
    ) -> Upload:
        """A new upload, or the one that there is."""
        if upload is None:
            if header.offset:
                raise _wrong_offset(header.home.session_id, upload_id, header.offset, 0)
            resumable = caller.request_key is not None
            taken = await upload_store.insert(
                tx, header, upload_id, owner.user_id, uuid4(), self._keep, resumable=resumable
            )
        elif upload.state is UploadState.RECEIVING:
            taken = await upload_store.take_over(tx, header.home, upload_id, uuid4(), self._keep)
        else:
            name = upload_name(upload.session_id, upload_id)
            raise Aborted(Reason.CONCURRENT_CHANGE, f"{name!r} is {upload.state}: try again in a moment")
        if taken is None:
            raise _taken_over()
        return taken

    async def _take(
        self, caller: Caller, owner: Owner, header: Header, upload: Upload, chunks: AsyncIterator[bytes]
    ) -> StoredFile:
        home, name = header.home, file_name(header.home.session_id, header.path)
        with told(name):
            async with self._place.receive(home, upload.id, header.offset) as receiver:
                if receiver.offset != header.offset:
                    raise _wrong_offset(home.session_id, upload.id, header.offset, receiver.offset)
                with keeping((header.size_bytes or 0) - header.offset):
                    await self._receive(caller, header, upload, receiver, chunks)
                _check_arrived(header, receiver.offset)
                sealed = await receiver.seal()
                _check_sum(header, sealed)
                return await self._publish(caller, owner, upload, home, sealed)

    async def _receive(
        self, caller: Caller, header: Header, upload: Upload, receiver: Receiver, chunks: AsyncIterator[bytes]
    ) -> None:
        room = upload.reserved_bytes
        async for data in chunks:
            end = receiver.offset + len(data)
            self._check_size(header, end)
            if header.size_bytes is not None and end > header.size_bytes:
                raise InvalidArgument.field("data", f"more bytes came than the {header.size_bytes} that were announced")
            if end > room:
                room += await self._more_room(caller, header.home, upload, end - room, room)
            await receiver.write(data)

    async def _more_room(self, caller: Caller, home: Home, upload: Upload, needed: int, before: int) -> int:
        """Set room aside for what comes; as little as is needed where there is not more."""
        wanted = min(max(before, _LEAST_STEP), _MOST_STEP)
        if wanted > needed:
            with suppress(QuotaExceeded):
                return await self._set_aside(caller, home, upload, wanted)
        async with self._quotas.telling():
            return await self._set_aside(caller, home, upload, needed)

    async def _set_aside(self, caller: Caller, home: Home, upload: Upload, more: int) -> int:
        async with self._database.tenant(caller.tenant) as tx:
            tx.audited = True  # with its file
            if not await upload_store.touch(tx, home, upload, more, self._keep):
                raise _taken_over()
            await self._quotas.reserve_storage(tx, caller, upload.user_id, more)
        return more

    async def _publish(self, caller: Caller, owner: Owner, upload: Upload, home: Home, sealed: Sealed) -> StoredFile:
        name, names = file_name(home.session_id, upload.path), paths.parse(upload.path)
        change = Change(home, new_id(), upload.user_id, ChangeKind.PUT, upload.path, upload_id=upload.id)
        async with self._changes.holding(caller, change):
            found = await self._place.find(home, names)
            check_etag(name, upload.etag, found)
            if found is not None and found.is_folder:
                raise paths.PathRefused("it is a folder")

            async def decide(tx: Transaction) -> AuditEntry:
                if not await upload_store.finishing(tx, home, upload, sealed):
                    raise _taken_over()
                details = {"size_bytes": sealed.size_bytes, "sha256": sealed.sha256}
                return entry_of("file.put", name, caller, owner, {**details, "replaced": found is not None})

            file = await self._changes.make(caller, change, decide)
        if file is None:
            raise Aborted(Reason.CONCURRENT_CHANGE, f"another server has put {name!r} in its place; look at it")
        return file

    async def _leave_nothing_of_one_given_up(self, caller: Caller, upload: Upload, home: Home) -> None:
        """It may have been given up, and its bytes thrown away, while this stream was still writing some."""
        async with self._database.system(autocommit=True) as tx:
            now = await upload_store.get(tx, home, upload.id)
        if now is None or now.state is UploadState.GIVEN_UP:
            await self._place.discard(home, upload.id)

    async def _give_up_at_once(self, caller: Caller, upload: Upload, home: Home) -> None:
        async with self._database.system() as tx:
            now = await upload_store.get(tx, home, upload.id, lock=True)
            if now is None or now.writer != upload.writer or now.state is not UploadState.RECEIVING:
                return
            await upload_store.give_up(tx, home, upload.id, uuid4())
            await forget(tx, caller.tenant, caller.request_key)
        await self._forget(home, upload.id)

    async def _forget(self, home: Home, upload_id: UUID, told_as: tuple[Caller, AuditEntry] | None = None) -> None:
        """Throw away what arrived, then free what was set aside for it."""
        await self._place.discard(home, upload_id)
        async with self._database.system() as tx:
            gone = await upload_store.delete(tx, home, upload_id)
            if gone is None:
                return
            await self._quotas.count_storage(tx, home.organization_id, gone.user_id, reserved=-gone.reserved_bytes)
            if told_as is not None:
                caller, entry = told_as
                await self._audit.write(tx, caller, entry)

    def _check_size(self, header: Header, size: int) -> None:
        if size > self._most_bytes:
            name = file_name(header.home.session_id, header.path)
            raise FailedPrecondition(
                Reason.LIMIT_REACHED,
                f"{name!r} would have more than {self._most_bytes:,} bytes: upload it in parts, or raise"
                " storage.max_file_bytes",
                PreconditionViolation("FILE_SIZE", name, f"at most {self._most_bytes} bytes"),
            )


def _check_same(header: Header, upload: Upload) -> None:
    same_size = header.size_bytes is None or upload.size_bytes is None or header.size_bytes == upload.size_bytes
    same_sum = not header.sha256 or not upload.sha256 or header.sha256 == upload.sha256
    if header.path != upload.path or not same_size or not same_sum:
        raise InvalidArgument.field(
            "request_id", "was used for another upload; take a new one", Reason.REQUEST_ID_REUSED
        )


def _check_arrived(header: Header, size_bytes: int) -> None:
    if header.size_bytes is not None and size_bytes != header.size_bytes:
        raise InvalidArgument.field(
            "data", f"only {size_bytes} of the {header.size_bytes} bytes came that were announced"
        )


def _check_sum(header: Header, sealed: Sealed) -> None:
    if header.sha256 and sealed.sha256 != header.sha256:
        text = f"the bytes that arrived have the checksum {sealed.sha256}, not {header.sha256}; send them again"
        raise InvalidArgument.field("header.sha256", text, Reason.CHECKSUM_MISMATCH)


def _wrong_offset(session_id: UUID, upload_id: UUID, offset: int, received: int) -> FailedPrecondition:
    name = upload_name(session_id, upload_id)
    return FailedPrecondition(
        Reason.UPLOAD_OFFSET,
        f"{received} bytes of {name!r} have arrived, not {offset}: go on there, or begin at 0",
        PreconditionViolation("UPLOAD_OFFSET", name, f"offset: {received}"),
    )


def _taken_over() -> Aborted:
    return Aborted(Reason.CONCURRENT_CHANGE, "another stream has taken this upload over, or it was given up")


def _hopeless(error: BaseException) -> bool:
    """Whether to go on with an upload that failed so would fail again."""
    if not isinstance(error, StationmasterError):
        return False
    return error.reason in {
        Reason.CHECKSUM_MISMATCH,
        Reason.ETAG_MISMATCH,
        Reason.FILE_REFUSED,
        Reason.LIMIT_REACHED,
        Reason.QUOTA_EXCEEDED,
        Reason.STORAGE_FULL,
    }
