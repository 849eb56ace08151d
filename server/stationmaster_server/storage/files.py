"""The files of workspaces: found, read, deleted, moved."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import look, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Reason
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.storage import file_store, paths
from stationmaster_server.storage.access import home_of, owner_of, require_open
from stationmaster_server.storage.changes import Changes
from stationmaster_server.storage.faults import told
from stationmaster_server.storage.file_model import (
    ANY,
    NONE,
    Change,
    ChangeKind,
    Owner,
    StoredFile,
    file_name,
    stored,
)
from stationmaster_server.storage.heap import keeping
from stationmaster_server.storage.places.place import Found, Home, NotEmpty, Place, Reading

_FILTER = re.compile(r'\s*(?:name\s*=\s*"(?P<pattern>[^"/]+)"\s*)?')


@dataclass(frozen=True, slots=True)
class FilePiece:
    """Some bytes of a file; the first piece brings the file, the last the SHA-256 of all pieces."""

    file: StoredFile | None
    offset: int
    data: bytes
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to a change that brings no file."""

    path: str


class Files:
    """Members see the files of their own sessions, owners and admins all."""

    def __init__(self, database: Database, place: Place, changes: Changes) -> None:
        self._database = database
        self._place = place
        self._changes = changes

    async def list_files(
        self, caller: Caller, session_id: UUID, folder: str, filter_text: str, page: PageRequest, *, recursive: bool
    ) -> Page[StoredFile]:
        """What is in a folder, or all files below it. Raises NotFound, InvalidArgument, FailedPrecondition."""
        names = paths.require(folder, "folder") if folder else ()
        pattern = _pattern(filter_text)
        home = home_of(caller, session_id)
        await owner_of(self._database, caller, session_id)
        after = str(page.after[0]) if page.after else ""
        with told(file_name(session_id, folder)):
            listed = await self._place.list(home, names, recursive=recursive, after=after, limit=page.size)
        found = [each for each in listed.found if _fits(each, pattern)]
        files = await self._with_checksums(caller, home, found)
        return Page(files, (listed.after,) if listed.after else None, [(each.cursor,) for each in found])

    async def stat(self, caller: Caller, session_id: UUID, path: str) -> StoredFile:
        """A file or folder. Raises NotFound, InvalidArgument, FailedPrecondition(FILE_REFUSED)."""
        names = paths.require(path, "name")
        home, name = home_of(caller, session_id), file_name(session_id, path)
        await owner_of(self._database, caller, session_id, NotFound("File", name))
        (file,) = await self._with_checksums(caller, home, [await self._find(home, names, name)])
        return file

    async def download(
        self, caller: Caller, session_id: UUID, path: str, offset: int, etag: str
    ) -> AsyncGenerator[FilePiece, None]:
        """The bytes of a file from an offset on, a piece or two in memory at a time.

        Raises NotFound, InvalidArgument (also for an offset past the end), FailedPrecondition, Aborted.
        """
        names = paths.require(path, "name")
        home, name = home_of(caller, session_id), file_name(session_id, path)
        await owner_of(self._database, caller, session_id, NotFound("File", name))
        with told(name):
            async with self._place.read(home, names) as reading:
                (file,) = await self._with_checksums(caller, home, [reading.found])
                check_etag(name, etag, reading.found)
                size = file.size_bytes or 0
                if offset > size:
                    raise InvalidArgument.field("offset", f"is past the end: the file has {size} bytes")
                with keeping(size - offset):
                    async with aclosing(_pieces(file, reading, offset)) as pieces:
                        async for piece in pieces:
                            yield piece

    async def delete(self, caller: Caller, session_id: UUID, path: str, etag: str) -> None:
        """Delete a file or an empty folder. Raises NotFound, InvalidArgument, FailedPrecondition, Aborted."""
        names = paths.require(path, "name")
        home, name = home_of(caller, session_id), file_name(session_id, path)
        owner = await self._owner_unless_done(caller, session_id, name, Done)
        if owner is None:
            return
        change = Change(home, new_id(), owner.user_id, ChangeKind.DELETE, path)
        async with self._changes.holding(caller, change):
            found = await self._find(home, names, name)
            check_etag(name, etag, found)
            if found.is_folder:
                await self._require_empty(home, names, name)

            async def decide(tx: Transaction) -> AuditEntry:
                if await recall(tx, caller.tenant, caller.request_key, Done) is not None:
                    raise _raced(name)
                await remember(tx, caller.tenant, caller.request_key, Done(path))
                return entry_of("file.delete", name, caller, owner, {"size_bytes": found.size_bytes})

            await self._changes.make(caller, replace(change, etag=found.etag), decide)

    async def move(
        self, caller: Caller, session_id: UUID, path: str, target: str, etag: str, *, overwrite: bool
    ) -> StoredFile:
        """Give a file another path. Raises NotFound, InvalidArgument, AlreadyExists, FailedPrecondition, Aborted."""
        names, target_names = paths.require(path, "name"), paths.require(target, "destination")
        home, name = home_of(caller, session_id), file_name(session_id, path)
        target_name = file_name(session_id, target)
        owner = await self._owner_unless_done(caller, session_id, name, Done)
        if owner is None:
            return await self.stat(caller, session_id, target)
        require_open(owner, session_id)
        if names == target_names:
            raise InvalidArgument.field("destination", "is the path that the file has")
        change = Change(home, new_id(), owner.user_id, ChangeKind.MOVE, path, target)
        async with self._changes.holding(caller, change):
            found = await self._find(home, names, name)
            check_etag(name, etag, found)
            if found.is_folder:
                raise InvalidArgument.field("name", "is a folder; only files can be moved")
            with told(target_name):
                there = await self._place.find(home, target_names)
            if there is not None and (there.is_folder or not overwrite):
                raise AlreadyExists("File", target_name)

            async def decide(tx: Transaction) -> AuditEntry:
                if await recall(tx, caller.tenant, caller.request_key, Done) is not None:
                    raise _raced(name)
                await remember(tx, caller.tenant, caller.request_key, Done(target))
                return entry_of("file.move", target_name, caller, owner, {"source": name})

            moved = await self._changes.make(caller, replace(change, etag=found.etag), decide)
        return moved or await self.stat(caller, session_id, target)

    async def _owner_unless_done(self, caller: Caller, session_id: UUID, name: str, answer: type[Done]) -> Owner | None:
        """Whose session it is; None when this very request was answered before."""
        owner = await owner_of(self._database, caller, session_id, NotFound("File", name))
        if caller.request_key is not None:
            async with self._database.tenant(caller.tenant, read=True) as tx:
                if await look(tx, caller.tenant, caller.request_key, answer) is not None:
                    return None
        return owner

    async def _find(self, home: Home, names: tuple[str, ...], name: str) -> Found:
        with told(name):
            found = await self._place.find(home, names)
        if found is None:
            raise NotFound("File", name)
        return found

    async def _require_empty(self, home: Home, names: tuple[str, ...], name: str) -> None:
        with told(name):
            if (await self._place.list(home, names, recursive=False, after="", limit=1)).found:
                raise NotEmpty(name)

    async def _with_checksums(self, caller: Caller, home: Home, found: list[Found]) -> list[StoredFile]:
        files = [each.path for each in found if not each.is_folder]
        known: dict[tuple[str, str], str] = {}
        if files:
            async with self._database.tenant(caller.tenant, read=True) as tx:
                known = await file_store.checksums(tx, home, files)
        return [stored(home, each, known.get((each.path, each.etag), "")) for each in found]


def check_etag(name: str, etag: str, found: Found | None) -> None:
    """Raises Aborted(ETAG_MISMATCH) when what is there is not what the caller expects (empty: anything is)."""
    if not etag:
        return
    there = None if found is None or found.is_folder else found.etag
    if etag == NONE:
        if there is not None:
            raise Aborted(Reason.ETAG_MISMATCH, f"{name!r} exists already")
        return
    if etag == ANY:
        fits, what = there is not None, "it is not there"
    else:
        fits, what = there == etag, f"its etag is {there}, not {etag}" if there else "it is not there"
    if not fits:
        raise Aborted(Reason.ETAG_MISMATCH, f"{name!r} was changed meanwhile: {what}; read it again and decide anew")


def entry_of(action: str, name: str, caller: Caller, owner: Owner, details: dict[str, object]) -> AuditEntry:
    """What the trail is told of a change of a file."""
    whose = "" if owner.user_id == caller.tenant.user_id else f"users/{owner.user_id}"
    return AuditEntry(action, name, details=details, on_behalf_of=whose)


async def _pieces(file: StoredFile, reading: Reading, offset: int) -> AsyncGenerator[FilePiece, None]:
    """Each piece is held back until the next one is there, so that the last can tell the checksum.

    Of a whole file that was uploaded it is the one that was checked then: bytes that changed on the disk do not fit.
    """
    digest, first = hashlib.sha256(), file
    known = "" if offset else file.sha256
    held = FilePiece(first, offset, b"")
    async with aclosing(reading.pieces(offset, None if known else digest.update)) as pieces:
        async for data in pieces:
            if held.data:
                yield held
            held = FilePiece(None if held.data else first, offset, data)
            offset += len(data)
    yield replace(held, sha256=known or digest.hexdigest())


def _pattern(filter_text: str) -> str:
    """What names are to fit, with `*` for anything; empty: all do. Raises InvalidArgument(INVALID_FILTER)."""
    match = _FILTER.fullmatch(filter_text)
    if match is None:
        text = 'must be empty or like name = "*.csv", with * for any characters'
        raise InvalidArgument.field("filter", text, Reason.INVALID_FILTER)
    return (match["pattern"] or "").replace("[", "[[]").replace("?", "[?]")


def _fits(found: Found, pattern: str) -> bool:
    return not pattern or fnmatchcase(found.path.rpartition("/")[2], pattern)


def _raced(name: str) -> Aborted:
    return Aborted(Reason.CONCURRENT_CHANGE, f"the same request is just being made on {name!r}; try again")
