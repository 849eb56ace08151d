"""Receives the files of an archive aside, each as the first reading of the archive has found it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from uuid import UUID

from stationmaster_server.storage.archives import sources
from stationmaster_server.storage.archives.model import ArchiveRefused, Member
from stationmaster_server.storage.archives.sources import Source
from stationmaster_server.storage.places.place import Home, Place
from stationmaster_server.storage.places.threads import AT_ONCE, Threads, together

_SMALL_BYTES = 256 * 1024


async def receive_all(
    place: Place, threads: Threads, source: Source, home: Home, planned: Mapping[UUID, Member]
) -> None:
    """All files, in their order, by the ids of their uploads. Raises FailedPrecondition(ARCHIVE_REFUSED)."""
    small: dict[UUID, tuple[Member, bytes]] = {}
    async with sources.reading(place, threads, source) as unpacking:
        for upload_id, member in planned.items():
            if await unpacking.next() != (member.path, member.size_bytes):
                raise _changed(member)
            content = unpacking.content(member.path, member.size_bytes)
            if member.size_bytes > _SMALL_BYTES:
                await _receive(place, home, upload_id, member, content)
                continue
            async with aclosing(content) as pieces:
                small[upload_id] = member, b"".join([piece async for piece in pieces])
            if len(small) == AT_ONCE:
                await _receive_small(place, home, small)
                small.clear()
        await _receive_small(place, home, small)


async def _receive_small(place: Place, home: Home, small: Mapping[UUID, tuple[Member, bytes]]) -> None:
    """Side by side: to keep several for good takes a disk little longer than one."""
    await together(_receive(place, home, upload_id, member, _one(data)) for upload_id, (member, data) in small.items())


async def _receive(
    place: Place, home: Home, upload_id: UUID, member: Member, content: AsyncGenerator[bytes, None]
) -> None:
    async with place.receive(home, upload_id, 0) as receiver, aclosing(content) as pieces:
        async for piece in pieces:
            await receiver.write(piece)
        sealed = await receiver.seal()
    if sealed.sha256 != member.sha256:
        raise _changed(member)


async def _one(data: bytes) -> AsyncGenerator[bytes, None]:
    if data:
        yield data


def _changed(member: Member) -> ArchiveRefused:
    return ArchiveRefused(member.path, "the archive was changed while it was read")
