"""Archives that are there: listed, downloaded, deleted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timedelta
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Aborted, InvalidArgument, NotFound, Reason
from stationmaster_server.identity.model import owner_scope
from stationmaster_server.storage.archives import archive_store
from stationmaster_server.storage.archives.model import (
    Archive,
    ArchiveFormat,
    ArchivePiece,
    Cleaned,
    archive_name,
    names_of,
)
from stationmaster_server.storage.archives.removing import Removing, deletion
from stationmaster_server.storage.faults import told
from stationmaster_server.storage.files import Done
from stationmaster_server.storage.places.place import Home, Place

_MOST_AT_ONCE = 1000
_SAMPLE = 100

LISTING = Listing(
    {
        "session": Field("('sessions/' || a.session_id)", str),
        "format": Field("a.format", ArchiveFormat),
        "size_bytes": Field("a.size_bytes", int),
        "content_bytes": Field("a.content_bytes", int),
        "file_count": Field("a.file_count", int),
        "owner": Field("('users/' || a.user_id)", str),
        "create_time": Field("a.created_at", datetime),
    },
    key="a.id",
    default_order="create_time desc",
)


class Archives:
    """Members see the archives of their own sessions, owners and admins all."""

    def __init__(self, database: Database, audit: AuditLog, place: Place, removing: Removing) -> None:
        self._database = database
        self._audit = audit
        self._place = place
        self._removing = removing

    async def get(self, caller: Caller, session_id: UUID) -> Archive:
        """The archive of a session. Raises NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await _within(tx, caller, session_id)

    async def list_archives(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[Archive]:
        """A page of archives, newest first by default. Raises InvalidArgument."""
        clause = LISTING.sql(filter_text, order_by, page, start=3)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await archive_store.list_archives(tx, caller.tenant.organization_id, owner_scope(caller), clause)

    async def download(
        self, caller: Caller, session_id: UUID, offset: int, etag: str
    ) -> AsyncGenerator[ArchivePiece, None]:
        """The bytes of an archive from an offset on. Raises NotFound, InvalidArgument, Aborted."""
        organization_id, name = caller.tenant.organization_id, archive_name(session_id)
        archive = await self.get(caller, session_id)
        _check_etag(archive, etag)
        if offset > archive.size_bytes:
            raise InvalidArgument.field("offset", f"is past the end: the archive has {archive.size_bytes} bytes")
        first: Archive | None = archive
        if offset == archive.size_bytes:
            yield ArchivePiece(archive, offset, b"")
            return
        home = Home(organization_id, archive.id)
        with told(name):
            async with (
                self._place.read(home, names_of(archive.format)) as opened,
                aclosing(opened.pieces(offset)) as pieces,
            ):
                async for data in pieces:
                    yield ArchivePiece(first, offset, data)
                    first, offset = None, offset + len(data)

    async def delete(self, caller: Caller, session_id: UUID, etag: str) -> None:
        """Delete an archive. Raises NotFound, Aborted(ETAG_MISMATCH)."""
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant) as tx:
            if await recall(tx, caller.tenant, caller.request_key, Done) is not None:
                return
            archive = await _within(tx, caller, session_id)
            _check_etag(archive, etag)
            left = await archive_store.give_up(tx, organization_id, [archive.id])
            if not left:
                raise NotFound("Archive", archive_name(session_id))
            await self._audit.write(tx, caller, deletion(archive, on_behalf_of=_whose(caller, archive)))
            await remember(tx, caller.tenant, caller.request_key, Done(""))
        await self._removing.remove(left)

    async def clean_up(
        self, caller: Caller, filter_text: str, older_than: timedelta | None, *, only_tell: bool
    ) -> Cleaned:
        """Delete what fits a filter and is old enough, at most 1,000 at once. Raises InvalidArgument."""
        if not filter_text.strip() and older_than is None:
            raise InvalidArgument.field("filter", "say which archives: by a filter, by older_than, or by both")
        organization_id = caller.tenant.organization_id
        page = PageRequest(_MOST_AT_ONCE - 1)  # the query asks for one more
        clause = LISTING.sql(filter_text, "create_time", page, start=4)
        async with self._database.tenant(caller.tenant) as tx:
            if not only_tell and (known := await recall(tx, caller.tenant, caller.request_key, Cleaned)) is not None:
                return known
            age = older_than or timedelta(0)
            found = await archive_store.fitting(tx, organization_id, owner_scope(caller), clause, age)
            cleaned = _cleaned(found)
            if only_tell or not found:
                tx.audited = True  # nothing changes
                left = []
            else:
                left = await archive_store.give_up(tx, organization_id, [archive.id for archive in found])
            for archive in found if left else []:
                entry = deletion(archive, reason="clean-up", on_behalf_of=_whose(caller, archive))
                await self._audit.write(tx, caller, entry)
            if not only_tell:
                await remember(tx, caller.tenant, caller.request_key, cleaned)
        await self._removing.remove(left)
        return cleaned


async def _within(tx: Transaction, caller: Caller, session_id: UUID) -> Archive:
    archive = await archive_store.get(tx, caller.tenant.organization_id, owner_scope(caller), session_id)
    if archive is None:
        raise NotFound("Archive", archive_name(session_id))
    return archive


def _cleaned(found: list[Archive]) -> Cleaned:
    sample = [archive_name(archive.session_id) for archive in found[:_SAMPLE]]
    return Cleaned(len(found), sum(archive.size_bytes for archive in found), sample)


def _whose(caller: Caller, archive: Archive) -> str:
    return "" if archive.user_id == caller.tenant.user_id else f"users/{archive.user_id}"


def _check_etag(archive: Archive, etag: str) -> None:
    if etag and etag != archive.etag:
        name = archive_name(archive.session_id)
        raise Aborted(Reason.ETAG_MISMATCH, f"{name!r} is another archive by now; read it again and decide anew")
