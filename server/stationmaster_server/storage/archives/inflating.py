"""The bytes in a packed stream, as they are asked for: a piece or two in memory, in threads, and only so many."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator

from stationmaster_server.storage.archives.codecs import decompressor
from stationmaster_server.storage.archives.model import ArchiveFormat, ArchiveRefused, Limits
from stationmaster_server.storage.places.threads import Threads

_PIECE_BYTES = 1024 * 1024
_FREE_BYTES = 64 * 1024 * 1024
"""So much may come of anything; beyond it the ratio counts."""
_MOST_AFTER_END = 64 * 1024
"""Tar files are filled up with zeros."""


class Inflating:
    """What becomes of packed bytes when they are unpacked. Everything raises ArchiveRefused, naming `member`."""

    def __init__(
        self, packed: AsyncGenerator[bytes, None], form: ArchiveFormat, threads: Threads, limits: Limits
    ) -> None:
        self._packed = packed
        self._inner = decompressor(form)
        self.threads = threads
        self._limits = limits
        self._digest = hashlib.sha256()
        self._waiting = memoryview(b"")
        self._taken = self._given = 0
        self.member = ""
        """What is being read, for errors."""

    async def some(self, most: int) -> bytes:
        """The next bytes, at least one. Raises ArchiveRefused when there is none."""
        if not self._waiting and not await self._more():
            raise ArchiveRefused(self.member, "the archive ends here: it was cut off")
        out, self._waiting = bytes(self._waiting[:most]), self._waiting[most:]
        return out

    async def exactly(self, count: int) -> bytes:
        """So many bytes."""
        if len(self._waiting) >= count:
            out, self._waiting = bytes(self._waiting[:count]), self._waiting[count:]
            return out
        pieces = bytearray()
        while len(pieces) < count:
            pieces += await self.some(count - len(pieces))
        return bytes(pieces)

    async def end(self) -> None:
        """Nothing may follow but a few zeros, also where the packed stream has ended."""
        zeros = 0
        while self._waiting or await self._more():
            zeros += len(self._waiting)
            if any(self._waiting) or zeros > _MOST_AFTER_END:
                raise ArchiveRefused(self.member, "something comes after the end of the archive")
            self._waiting = memoryview(b"")
        if self._inner.unused_data or await anext(self._packed, b""):
            raise ArchiveRefused(self.member, "something comes after the end of the archive")

    def sha256(self) -> str:
        """Of what was read, packed as it is."""
        return self._digest.hexdigest()

    async def _more(self) -> bool:
        """Get some more bytes; False at the end that the stream itself has announced."""
        while not self._inner.eof:
            data = await anext(self._packed, b"") if self._inner.needs_input else b""
            if not data and self._inner.needs_input:
                raise ArchiveRefused(self.member, "the archive ends here: it was cut off")
            self._taken += len(data)
            out = await self.threads.run(self._inflate, data)
            self._given += len(out)
            self._check_ratio()
            if out:
                self._waiting = memoryview(out)
                return True
        return False

    def _inflate(self, data: bytes) -> bytes:
        self._digest.update(data)
        try:
            return self._inner.decompress(data, _PIECE_BYTES)
        except ArchiveRefused as refused:
            raise ArchiveRefused(self.member, f"the archive {refused.why}") from None

    def _check_ratio(self) -> None:
        ratio = self._limits.most_ratio
        if ratio is not None and self._given > max(_FREE_BYTES, ratio * self._taken):
            raise ArchiveRefused(self.member, f"unpacks to more than {ratio:,} times the bytes that it has")
