"""Fills archives: the files of a workspace are read one after the other, while others go on changing it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress

from stationmaster_server.errors import Aborted, FailedPrecondition, PreconditionViolation, Reason
from stationmaster_server.identity.excess import QuotaExceeded
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.storage.archives.model import ArchiveRefused, Rules
from stationmaster_server.storage.archives.names import Tree, Twice
from stationmaster_server.storage.archives.packing import Packer
from stationmaster_server.storage.file_model import file_name
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.places.place import PIECE_BYTES, Found, Home, Place, Reading, Receiver
from stationmaster_server.storage.places.threads import Threads

_PAGE = 500
_ATTEMPTS = 5
_LEAST_STEP, _MOST_STEP = 1024 * 1024, 64 * 1024 * 1024
"""What is set aside at once for an archive: as much as it has, within these."""


class Room:
    """A receiver that is given no byte before it is set aside."""

    def __init__(self, quotas: Quotas, set_aside: Callable[[int], Awaitable[None]], receiver: Receiver) -> None:
        self._quotas = quotas
        self._set_aside = set_aside
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
                await self._set_aside(wanted)
                return wanted
        async with self._quotas.telling():
            await self._set_aside(needed)
        return needed


class Filling:
    """Packs all files of a workspace."""

    def __init__(self, place: Place, threads: Threads, rules: Rules) -> None:
        self._place = place
        self._threads = threads
        self._rules = rules

    async def fill(self, source: Home, packer: Packer, room: Room) -> None:
        """Raises FailedPrecondition(LIMIT_REACHED), Aborted where a large file was changed while it was read."""
        after, seen = "", Tree(self._rules.most_files, distinct_in_case=False)
        while True:
            listed = await self._place.list(source, (), recursive=True, after=after, limit=_PAGE)
            for found in listed.found:
                await self._pack_file(source, packer, room, seen, found.path)
            after = listed.after
            if not after:
                return

    async def _pack_file(self, source: Home, packer: Packer, room: Room, seen: Tree, path: str) -> None:
        """One that is small is read whole before it is packed, and again when it was changed meanwhile."""
        names, entered = path.split("/"), False
        for attempt in range(_ATTEMPTS):
            try:
                async with self._place.read(source, names) as reading:
                    self._check(source, packer, reading.found)
                    if not entered:
                        self._enter(source, seen, names)
                        entered = True
                    if (reading.found.size_bytes or 0) > PIECE_BYTES:
                        await self._pack_large(packer, room, reading)
                    else:
                        await self._pack_small(packer, reading)
                break
            except (FileNotFoundError, PathRefused, Twice):
                if packer.is_open:
                    raise _gone(source, path) from None
                return  # it was there when we looked, or another kind of thing
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

    async def _pack_large(self, packer: Packer, room: Room, reading: Reading) -> None:
        _begin_file(packer, reading.found)
        async with aclosing(reading.pieces(0)) as pieces:
            async for piece in pieces:
                await self._threads.run(packer.add, piece)
                await room.write(await self._threads.run(packer.drain))
        packer.end()

    def _check(self, source: Home, packer: Packer, found: Found) -> None:
        rules = self._rules
        if len(packer.members) >= rules.most_files:
            what = f"more than {rules.most_files:,} files: delete some, or raise storage.max_archive_files"
            raise _too_much(source, found.path, what)
        if packer.content_bytes + (found.size_bytes or 0) > rules.most_bytes:
            what = f"more than {rules.most_bytes:,} bytes: delete some files, or raise storage.max_archive_bytes"
            raise _too_much(source, found.path, what)

    def _enter(self, source: Home, seen: Tree, names: Sequence[str]) -> None:
        try:
            seen.add(names)
        except Twice:
            raise
        except ArchiveRefused as refused:
            raise _too_much(source, "/".join(names), f"too much: {refused.why}") from None


def _too_much(source: Home, path: str, what: str) -> FailedPrecondition:
    name = file_name(source.session_id, path)
    violation = PreconditionViolation("ARCHIVE_SIZE", name, "leave files out")
    return FailedPrecondition(Reason.LIMIT_REACHED, f"with {name!r} the archive would hold {what}", violation)


def _gone(source: Home, path: str) -> Aborted:
    name = file_name(source.session_id, path)
    return Aborted(Reason.CONCURRENT_CHANGE, f"{name!r} was deleted while it was archived; archive again")


def _begin_file(packer: Packer, found: Found) -> None:
    changed_at = 0 if found.changed_at is None else max(0, int(found.changed_at.timestamp()))
    packer.begin(found.path, found.size_bytes or 0, changed_at)
