"""Reads an archive that nobody vouches for: in order, to its end, within limits, and nothing but plain files."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator

from stationmaster_server.storage import paths
from stationmaster_server.storage.archives import manifest, tar
from stationmaster_server.storage.archives.inflating import Inflating
from stationmaster_server.storage.archives.model import MANIFEST, WORKSPACE, ArchiveRefused, Limits, Member, NotOurs
from stationmaster_server.storage.archives.names import Tree

_PIECE_BYTES = 1024 * 1024


class Unpacking:
    """The files of an archive, one after the other: `next`, then all of `content`. Both raise ArchiveRefused.

    Once `next` gives None the manifest has been compared with what was read, and there was nothing after it.
    """

    def __init__(self, stream: Inflating, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._total = 0
        self._names = Tree(max(limits.most_files, limits.most_names), distinct_in_case=limits.distinct_in_case)
        self.members: list[Member] = []

    async def next(self) -> tuple[str, int] | None:
        """The path and the size of the next file."""
        name, size = await self._head()
        if name == MANIFEST:
            await self._end(size)
            return None
        path = self._path(name)
        if len(self.members) == self._limits.most_files:
            raise ArchiveRefused(path, f"is one more file than the {self._limits.most_files:,} that there may be")
        self._total += size
        if self._total > self._limits.most_bytes:
            raise ArchiveRefused(path, f"with it the files have more than {self._limits.most_bytes:,} bytes")
        self._stream.member = path
        return path, size

    async def content(self, path: str, size: int) -> AsyncGenerator[bytes, None]:
        """The bytes of the file that `next` has told of."""
        digest, left = hashlib.sha256(), size
        while left:
            data = await self._stream.some(min(left, _PIECE_BYTES))
            digest.update(data)
            left -= len(data)
            yield data
        await self._padding(path, size)
        self.members.append(Member(path, size, digest.hexdigest()))

    def sha256(self) -> str:
        """Of the archive, packed as it is, once it was read to its end."""
        return self._stream.sha256()

    async def _head(self) -> tuple[str, int]:
        block = await self._stream.exactly(tar.BLOCK)
        if not any(block):
            raise NotOurs("", f"ends without {MANIFEST}: it was cut off, or is none of a workspace")
        head = tar.parse(block)
        if not head.is_extended:
            return head.name, head.size_bytes
        if head.size_bytes > tar.MOST_EXTENDED_BYTES:
            raise ArchiveRefused(head.name, f"has a header of more than {tar.MOST_EXTENDED_BYTES:,} bytes")
        more = tar.extended(await self._stream.exactly(head.size_bytes))
        await self._padding(head.name, head.size_bytes)
        head = tar.parse(await self._stream.exactly(tar.BLOCK))
        if head.is_extended:
            raise ArchiveRefused(head.name, "has two extended headers")
        return more.get("path", head.name), int(more.get("size", head.size_bytes))

    def _path(self, name: str) -> str:
        """The path of a member, which no other member may have, nor be in the way of."""
        if not name.startswith(WORKSPACE):
            raise NotOurs(name, f"is neither below {WORKSPACE} nor {MANIFEST}")
        path = name.removeprefix(WORKSPACE)
        try:
            names = paths.parse(path)
        except paths.PathRefused as refused:
            raise ArchiveRefused(name, str(refused)) from None
        self._names.add(names)
        return path

    async def _padding(self, path: str, size: int) -> None:
        if any(await self._stream.exactly(tar.padding(size))):
            raise ArchiveRefused(path, "something is hidden behind its end")

    async def _end(self, size: int) -> None:
        self._stream.member = MANIFEST
        if size > manifest.most_bytes(self.members):
            raise ArchiveRefused(MANIFEST, f"has {size:,} bytes, too many for {len(self.members):,} files")
        await self._stream.threads.run(manifest.check, await self._stream.exactly(size), self.members)
        await self._padding(MANIFEST, size)
        await self._stream.end()
