"""Files of a local disk that are open: one being uploaded, one being read."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
from collections.abc import AsyncGenerator, Callable
from typing import Self

from stationmaster_server.errors import Aborted, Reason
from stationmaster_server.storage.places import folders
from stationmaster_server.storage.places.place import PIECE_BYTES, Found, Sealed
from stationmaster_server.storage.places.threads import Threads, to_the_end

_KEEP = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_SYNC_BYTES = 64 * 1024 * 1024
"""The disk begins to write at the latest after so many bytes, so that the end has not everything left to do."""


def etag_of(status: os.stat_result) -> str:
    """Another one whenever the file is another, or was written to."""
    facts = f"{status.st_ino}/{status.st_size}/{status.st_mtime_ns}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


class LocalReceiver:
    """A file beside the workspaces, under a lock that ends with the process: `write` adds to it in a thread.

    While one piece is hashed and written, the next is already on its way.
    """

    def __init__(self, threads: Threads, descriptor: int, offset: int, digest: hashlib._Hash) -> None:
        self._threads = threads
        self._descriptor = descriptor
        self._digest = digest
        self._offset = offset
        self._unsynced = 0
        self._writing: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None

    @classmethod
    def begin(cls, threads: Threads, folder: int, name: str, offset: int) -> Self:
        """Open the upload's file, and read what is there; at 0, throw that away. Blocks. Raises Aborted."""
        descriptor = folders.open_file(name, _KEEP, folder)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                raise Aborted(
                    Reason.CONCURRENT_CHANGE, "another stream is still writing to this upload; try again in a moment"
                ) from None
            folders.require_plain(os.fstat(descriptor), name)
            if not offset:
                os.ftruncate(descriptor, 0)
            digest, there = hashlib.sha256(), os.lseek(descriptor, 0, os.SEEK_END)
            if there == offset:
                os.lseek(descriptor, 0, os.SEEK_SET)
                while piece := os.read(descriptor, PIECE_BYTES):
                    digest.update(piece)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(threads, descriptor, there, digest)

    @property
    def offset(self) -> int:
        """See `Receiver`."""
        return self._offset

    async def write(self, data: bytes) -> None:
        """See `Receiver`."""
        await self._written()
        if self._unsynced >= _SYNC_BYTES:
            await self._synced()
            self._unsynced = 0
            self._syncing = asyncio.ensure_future(self._threads.run(os.fdatasync, self._descriptor))
        self._offset += len(data)
        self._unsynced += len(data)
        self._writing = asyncio.ensure_future(self._threads.run(self._write, data))

    async def seal(self) -> Sealed:
        """See `Receiver`."""
        await self._written()
        await self._synced()
        await self._threads.run(os.fsync, self._descriptor)
        return Sealed(self._offset, self._digest.hexdigest())

    async def close(self) -> None:
        """Wait for what is being written, and let go of the file."""
        try:
            going = [task for task in (self._writing, self._syncing) if task is not None]
            if going:
                await to_the_end(asyncio.wait(going))
            for task in going:
                task.exception()  # seen: whoever closes has another error, or comes again
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of a file that nothing is written to."""
        os.close(self._descriptor)

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    async def _synced(self) -> None:
        if self._syncing is not None:
            await asyncio.shield(self._syncing)
            self._syncing = None

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        folders.write_all(self._descriptor, data)


class LocalReading:
    """An open file: whoever replaces it meanwhile does not disturb it."""

    def __init__(self, threads: Threads, descriptor: int, found: Found) -> None:
        self._threads = threads
        self._descriptor = descriptor
        self.found = found

    async def pieces(self, offset: int, seen: Callable[[bytes], None] | None = None) -> AsyncGenerator[bytes, None]:
        """See `Reading`."""
        size = self.found.size_bytes or 0
        ahead = asyncio.create_task(self._read(offset, seen))
        try:
            while offset < size:
                piece = await ahead
                if not piece:
                    raise self._changed()
                offset += len(piece)
                if offset < size:
                    ahead = asyncio.create_task(self._read(offset, seen))
                yield piece
            if etag_of(os.fstat(self._descriptor)) != self.found.etag:
                raise self._changed()
        finally:
            await to_the_end(asyncio.wait([ahead]))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    async def _read(self, offset: int, seen: Callable[[bytes], None] | None) -> bytes:
        return await self._threads.run(self._read_at, offset, seen)

    def _read_at(self, offset: int, seen: Callable[[bytes], None] | None) -> bytes:
        size = self.found.size_bytes or 0
        piece = os.pread(self._descriptor, min(PIECE_BYTES, size - offset), offset)
        if seen is not None:
            seen(piece)
        return piece

    def _changed(self) -> Aborted:
        return Aborted(Reason.CONCURRENT_CHANGE, f"{self.found.path} was changed while it was read; read it again")
