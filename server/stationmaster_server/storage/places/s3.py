"""Files in object storage that speaks the protocol of S3.

A file is the object `workspaces/{session}/{path}`. What is being uploaded is in parts below `uploads/{session}/{id}/`,
of which the object storage itself makes the file, at once, when they are all there and fit.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

from stationmaster_server.storage.paths import PathRefused, speakable
from stationmaster_server.storage.places.place import Found, Gone, Home, Listed, Measured, Names, NotEmpty, Published
from stationmaster_server.storage.places.s3_compose import abort_others, compose
from stationmaster_server.storage.places.s3_files import SEAL, S3Reading, S3Receiver, chain
from stationmaster_server.storage.places.s3_requests import Interrupted, Requests
from stationmaster_server.storage.places.s3_store import Object, Objects
from stationmaster_server.storage.places.threads import Threads

_ATTEMPTS = 3


class S3Place:
    """Folders are there while files are in them. `part_bytes`: what is sent of a file at once."""

    def __init__(self, objects: Objects, part_bytes: int) -> None:
        self._objects = objects
        self._requests = Requests(objects)
        self._part_bytes = part_bytes
        self._threads = Threads(4)

    async def find(self, home: Home, names: Names) -> Found | None:
        """See `Place`."""
        there = await self._objects.head(_key(home, names))
        if there is not None:
            return _found("/".join(names), there)
        await self._require_folders(home, names[:-1])
        if await self._objects.any_below(_key(home, names)):
            return Found("/".join(names), None)
        return None

    async def list(self, home: Home, names: Names, *, recursive: bool, after: str, limit: int) -> Listed:
        """See `Place`."""
        walk = self._files(home, names, after) if recursive else self._entries(home, names, after)
        found: list[Found] = []
        async for entry in walk:
            if len(found) == limit:
                return Listed(found, found[-1].cursor)
            found.append(entry)
        if not found:
            await self._require_folders(home, names)
        return Listed(found, "")

    @asynccontextmanager
    async def read(self, home: Home, names: Names) -> AsyncIterator[S3Reading]:
        """See `Place`."""
        there = await self._objects.head(_key(home, names))
        if there is None:
            if await self.find(home, names) is not None:
                raise PathRefused(f"{names[-1]} is a folder")
            raise FileNotFoundError(errno.ENOENT, "no such file")
        yield S3Reading(self._objects, self._threads, there, _found("/".join(names), there))

    @asynccontextmanager
    async def receive(self, home: Home, upload_id: UUID, offset: int) -> AsyncIterator[S3Receiver]:
        """See `Place`. Two streams on two servers do not hurt each other: each writes parts of its own."""
        upload = _upload(home, upload_id)
        receiver = await S3Receiver.begin(self._objects, self._threads, upload, offset, self._part_bytes)
        try:
            yield receiver
        finally:
            await receiver.close()

    async def received(self, home: Home, upload_id: UUID) -> int:
        """See `Place`."""
        upload = _upload(home, upload_id)
        found = [each async for each in self._objects.below(upload)]
        return sum(part.size for part in chain(found, upload))

    async def publish(self, home: Home, upload_id: UUID, names: Names) -> Published:
        """See `Place`."""
        upload, target = _upload(home, upload_id), _key(home, names)
        before, known = await self._composed(home, upload, names, str(upload_id))
        published = await self._published(names, target, before if known else None)
        # Whoever makes the same file too finds no parts any more, or not what they were being copied into.
        await self._objects.sweep(upload)
        await abort_others(self._requests, target)
        return replace(published, known=known)

    async def _composed(self, home: Home, upload: str, names: Names, mark: str) -> tuple[Object | None, bool]:
        """Have the file appear; what it replaced, and whether that is known: somebody else may have come first."""
        target = _key(home, names)
        for _ in range(_ATTEMPTS):
            before, known = None, False
            try:
                parts: list[str] = json.loads(await self._objects.get(f"{upload}/{SEAL}"))
                before = await self._room_for(home, names)
                known = before is None or await self._requests.mark(target) != mark
                if known:
                    await compose(self._requests, parts, target, mark)
            except (FileNotFoundError, Interrupted) as error:
                if await self._requests.mark(target) == mark:
                    return before, known
                if isinstance(error, FileNotFoundError):
                    raise Gone(errno.ENOENT, "what was uploaded is gone") from None
            else:
                return before, known
        raise self._objects.away("what it is to put together is aborted by somebody else, again and again")

    async def discard(self, home: Home, upload_id: UUID) -> None:
        """See `Place`."""
        await self._objects.sweep(_upload(home, upload_id))

    async def remove(self, home: Home, names: Names) -> int | None:
        """See `Place`."""
        there = await self._objects.head(_key(home, names))
        if there is not None:
            await self._objects.delete([there.key])
            return there.size
        if await self.find(home, names) is not None:
            raise NotEmpty(names[-1])
        raise FileNotFoundError(errno.ENOENT, "no such file")

    async def move(self, home: Home, names: Names, target: Names) -> Published:
        """See `Place`."""
        source = await self._objects.head(_key(home, names))
        if source is None:
            if await self.find(home, names) is not None:
                raise PathRefused(f"{names[-1]} is a folder")
            raise FileNotFoundError(errno.ENOENT, "no such file")
        before = await self._room_for(home, target)
        await self._objects.copy(source.key, _key(home, target))
        published = await self._published(target, _key(home, target), before)
        await self._objects.delete([source.key])
        return published

    async def measure(self, home: Home) -> Measured:
        """See `Place`."""
        used = count = 0
        async for each in self._objects.below(_key(home, ())):
            used, count = used + each.size, count + 1
        return Measured(used, count)

    async def clear(self, home: Home) -> bool:
        """See `Place`."""
        await self._objects.sweep(f"uploads/{home.session_id}")
        return await self._objects.sweep(_key(home, ()))

    async def close(self) -> None:
        """See `Place`."""
        self._threads.close()
        await self._objects.close()

    async def _room_for(self, home: Home, names: Names) -> Object | None:
        """The file that is to be replaced. Raises PathRefused where a folder is in the way, or a file of a folder."""
        await self._require_folders(home, names[:-1])
        before = await self._objects.head(_key(home, names))
        if before is None and await self._objects.any_below(_key(home, names)):
            raise PathRefused(f"{names[-1]} is not a plain file of the workspace")
        return before

    async def _require_folders(self, home: Home, names: Names) -> None:
        """Raises PathRefused where one of these names is a file."""
        heads = await asyncio.gather(
            *(self._objects.head(_key(home, names[:count])) for count in range(1, len(names) + 1))
        )
        for count, head in enumerate(heads, 1):
            if head is not None:
                raise PathRefused(f"{names[count - 1]} is not a folder of the workspace")

    async def _published(self, names: Names, key: str, before: Object | None) -> Published:
        after = await self._objects.head(key)
        if after is None:
            raise Gone(errno.ENOENT, "somebody else deleted it at once")
        return Published(_found("/".join(names), after), None if before is None else before.size)

    async def _files(self, home: Home, names: Names, after: str) -> AsyncIterator[Found]:
        root = _key(home, ())
        async for each in self._objects.below(_key(home, names), after=f"{root}/{after}" if after else ""):
            path = each.key.removeprefix(f"{root}/")
            if all(speakable(name) for name in path.split("/")):
                yield _found(path, each)

    async def _entries(self, home: Home, names: Names, after: str) -> AsyncIterator[Found]:
        root = _key(home, ())
        objects, folders = await self._objects.inside(_key(home, names))
        found = [_found(each.key.removeprefix(f"{root}/"), each) for each in objects]
        found += [Found(each.removeprefix(f"{root}/"), None) for each in folders]
        last = after.rstrip("/")
        for entry in sorted(found, key=lambda each: each.path):
            if entry.path > last and speakable(entry.path.rpartition("/")[2]):
                yield entry


def _key(home: Home, names: Sequence[str]) -> str:
    return "/".join(("workspaces", str(home.session_id), *names))


def _upload(home: Home, upload_id: UUID) -> str:
    return f"uploads/{home.session_id}/{upload_id}"


def _found(path: str, there: Object) -> Found:
    etag = hashlib.sha256(f"{there.etag}/{there.size}".encode()).hexdigest()[:32]
    return Found(path, there.size, etag, there.changed_at)
