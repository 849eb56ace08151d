"""Files of object storage that are open: one being uploaded, one being read."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Self
from uuid import uuid4

from stationmaster_server.errors import Aborted, Reason
from stationmaster_server.storage.places.place import PIECE_BYTES, Found, Sealed
from stationmaster_server.storage.places.s3_store import Changed, Object, Objects
from stationmaster_server.storage.places.threads import Threads, to_the_end

SEAL = "sealed"
"""The object beside the parts of an upload that says which of them make the file, once they are all there."""
_READ_BYTES = 4 * PIECE_BYTES


def part_key(upload: str, offset: int) -> str:
    """A new part. No other stream that does not know yet that its upload was taken over writes to the same one."""
    return f"{upload}/{offset:016x}-{uuid4().hex}"


def chain(found: Sequence[Object], upload: str) -> list[Object]:
    """The parts that go on from each other, from the first byte on."""
    longest: dict[int, Object] = {}
    for each in found:
        name = each.key.removeprefix(f"{upload}/")
        if name != SEAL:
            offset = int(name.partition("-")[0], 16)
            if offset not in longest or longest[offset].size < each.size:
                longest[offset] = each
    parts: list[Object] = []
    offset = 0
    while offset in longest and longest[offset].size:
        parts.append(longest[offset])
        offset += longest[offset].size
    return parts


class S3Receiver:
    """Parts of an upload, each kept for good when it is whole: one is sent while the next arrives."""

    def __init__(self, objects: Objects, threads: Threads, upload: str, part_bytes: int) -> None:
        self._objects = objects
        self._threads = threads
        self._upload = upload
        self._digest = hashlib.sha256()
        self._parts: list[str] = []
        self._part_bytes = part_bytes
        self._buffer = bytearray()
        self._hashed = 0
        self._offset = 0
        self._sending: asyncio.Task[None] | None = None
        self._sealed = False

    @classmethod
    async def begin(cls, objects: Objects, threads: Threads, upload: str, offset: int, part_bytes: int) -> Self:
        """Read what is there; at 0, throw that away. Raises Unavailable."""
        receiver = cls(objects, threads, upload, part_bytes)
        if offset:
            parts = chain([each async for each in objects.below(upload)], upload)
            there = sum(part.size for part in parts)
            if there == offset:
                await receiver._go_on(parts)
            receiver._offset = there
        else:
            await objects.sweep(upload)
        return receiver

    @property
    def offset(self) -> int:
        """See `Receiver`."""
        return self._offset

    async def write(self, data: bytes) -> None:
        """See `Receiver`."""
        rest = memoryview(data)
        while rest:
            taken = min(len(rest), self._part_bytes - len(self._buffer))
            self._buffer += rest[:taken]
            self._offset += taken
            rest = rest[taken:]
            if len(self._buffer) == self._part_bytes:
                await self._send()

    async def seal(self) -> Sealed:
        """See `Receiver`."""
        if self._buffer or not (self._parts or self._sending):
            await self._send()
        await self._sent()
        size, sha256 = self._offset, self._digest.hexdigest()
        await self._objects.put(f"{self._upload}/{SEAL}", json.dumps(self._parts).encode())
        self._sealed = True
        return Sealed(size, sha256)

    async def close(self) -> None:
        """Keep what has arrived, also of a part that is not whole."""
        if not self._sealed:
            await to_the_end(self._keep())

    async def _keep(self) -> None:
        try:
            await self._sent()
            if self._buffer:
                await self._send()
                await self._sent()
        except Exception:  # noqa: BLE001 - whoever closes has another error, or comes again and is told where to go on
            return

    async def _go_on(self, parts: Sequence[Object]) -> None:
        for number, part in enumerate(parts, 1):
            data = await self._objects.get(part.key)
            if number == len(parts) and part.size < self._part_bytes:
                # It becomes a whole one: only the last part of a file may be short.
                self._buffer += data
            else:
                await self._threads.run(self._digest.update, data)
                self._parts.append(part.key)
                self._hashed += part.size

    async def _send(self) -> None:
        await self._sent()
        data, self._buffer = memoryview(self._buffer), bytearray()
        self._sending = asyncio.create_task(self._put(data), name=f"part of upload {self._upload}")

    async def _sent(self) -> None:
        if self._sending is not None:
            await asyncio.shield(self._sending)
            self._sending = None

    async def _put(self, data: memoryview) -> None:
        key = part_key(self._upload, self._hashed)
        await self._threads.run(self._digest.update, data)
        await self._objects.put(key, data)
        self._hashed += len(data)
        self._parts.append(key)


class S3Reading:
    """A file as it was found: each request asks for no other."""

    def __init__(self, objects: Objects, threads: Threads, there: Object, found: Found) -> None:
        self._objects = objects
        self._threads = threads
        self._there = there
        self.found = found

    async def pieces(self, offset: int, seen: Callable[[bytes], None] | None = None) -> AsyncGenerator[bytes, None]:
        """See `Reading`."""
        size = self._there.size
        ahead = asyncio.create_task(self._read(offset))
        try:
            while offset < size:
                data = await ahead
                offset += len(data)
                if offset < size:
                    ahead = asyncio.create_task(self._read(offset))
                if seen is not None:
                    await self._threads.run(seen, data)
                for at in range(0, len(data), PIECE_BYTES):
                    yield data[at : at + PIECE_BYTES]
        except Changed:
            path = self.found.path
            text = f"{path} was changed while it was read; read it again"
            raise Aborted(Reason.CONCURRENT_CHANGE, text) from None
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _read(self, offset: int) -> bytes:
        end = min(offset + _READ_BYTES, self._there.size)
        if offset >= end:
            return b""
        return await self._objects.get(self._there.key, offset, end, etag=self._there.etag)
