"""Where a restore reads: an archive of ours, or one that lies in a workspace as a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PreconditionViolation,
    Reason,
)
from stationmaster_server.identity.model import owner_scope
from stationmaster_server.storage import paths
from stationmaster_server.storage.access import home_of, owner_of
from stationmaster_server.storage.archives import archive_store
from stationmaster_server.storage.archives.inflating import Inflating
from stationmaster_server.storage.archives.model import (
    MANIFEST,
    WORKSPACE,
    ArchiveFormat,
    ArchiveRefused,
    Limits,
    Member,
    NotOurs,
    Rules,
    archive_name,
    names_of,
)
from stationmaster_server.storage.archives.unpacking import Unpacking
from stationmaster_server.storage.faults import told
from stationmaster_server.storage.file_model import file_name
from stationmaster_server.storage.places.place import Home, Place
from stationmaster_server.storage.places.threads import Threads

_OURS = (
    f". Archives that ArchiveWorkspace made are restored: they have files as {WORKSPACE}PATH and, as the last member,"
    f" {MANIFEST} with their checksums. Unpack any other, and bring its files by UploadFile"
)


@dataclass(frozen=True, slots=True)
class Source:
    """An archive to be read. `sha256` is empty where any will do."""

    name: str
    home: Home
    names: tuple[str, ...]
    format: ArchiveFormat
    limits: Limits
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller wants restored: the archive of a session, or (`path`) a file of its workspace."""

    session_id: UUID
    path: str = ""


async def find(database: Database, caller: Caller, asked: Asked, rules: Rules) -> Source:
    """Raises NotFound, InvalidArgument."""
    if asked.path:
        return await _file(database, caller, asked, rules)
    organization_id = caller.tenant.organization_id
    async with database.tenant(caller.tenant, read=True) as tx:
        found = await archive_store.get(tx, organization_id, owner_scope(caller), asked.session_id)
    name = archive_name(asked.session_id)
    if found is None:
        raise NotFound("Archive", name)
    # What we have packed, as the checksum will show, unpacks to what was packed, however well that went.
    limits = Limits(found.file_count, found.content_bytes, distinct_in_case=False, most_names=rules.most_files)
    return Source(name, Home(organization_id, found.id), names_of(found.format), found.format, limits, found.sha256)


async def _file(database: Database, caller: Caller, asked: Asked, rules: Rules) -> Source:
    names = paths.require(asked.path, "source")
    name = file_name(asked.session_id, asked.path)
    form = next((each for each in ArchiveFormat if asked.path.endswith(each.ending)), None)
    if form is None:
        raise InvalidArgument.field("source", "must end with .tar.gz or .tar.zst, which says how it is compressed")
    await owner_of(database, caller, asked.session_id, NotFound("File", name))
    limits = Limits(rules.most_files, rules.most_bytes, rules.most_ratio)
    return Source(name, home_of(caller, asked.session_id), names, form, limits)


@asynccontextmanager
async def reading(place: Place, threads: Threads, source: Source) -> AsyncIterator[Unpacking]:
    """Reads it in the body. Raises FailedPrecondition(ARCHIVE_REFUSED), and NotFound where it is gone."""
    try:
        with told(source.name):
            async with place.read(source.home, source.names) as opened, aclosing(opened.pieces(0)) as pieces:
                yield Unpacking(Inflating(pieces, source.format, threads, source.limits), source.limits)
    except ArchiveRefused as refused:
        raise refusal(source, refused) from None


async def verify(place: Place, threads: Threads, source: Source) -> list[Member]:
    """Read it to its end; its files. Raises FailedPrecondition(ARCHIVE_REFUSED)."""
    async with reading(place, threads, source) as unpacking:
        while (member := await unpacking.next()) is not None:
            async with aclosing(unpacking.content(*member)) as pieces:
                async for _ in pieces:
                    pass
        if source.sha256 and unpacking.sha256() != source.sha256:
            raise ArchiveRefused("", "it is not what was stored: its checksum is another")
        return unpacking.members


def refusal(source: Source, refused: ArchiveRefused) -> FailedPrecondition:
    """What callers are told."""
    member = refused.member[:300]
    what = f"its member {member!r}: {refused.why}" if member else refused.why
    violation = PreconditionViolation("ARCHIVE_MEMBER", member or source.name, refused.why)
    text = f"{source.name!r} is not restored, {what}; nothing was changed"
    if isinstance(refused, NotOurs):
        text += _OURS
    return FailedPrecondition(Reason.ARCHIVE_REFUSED, text, violation)
