"""The files of a workspace that is no folder, for whoever works in it from inside: agents' tools, and kinds of tasks.

As `workspace.Workspace` is for folders. Quotas do not bound what is written so, as on a disk.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from stationmaster_server.storage.paths import PathRefused, normalise
from stationmaster_server.storage.places.place import Home, Place
from stationmaster_server.storage.places.threads import to_the_end
from stationmaster_server.storage.workspace import Entry, TooLarge

_PAGE = 1000


class Shelf:
    """The files of one session. All raise PathRefused, and Unavailable when the place is away."""

    def __init__(self, place: Place, organization_id: UUID, session_id: UUID) -> None:
        self._place = place
        self._home = Home(organization_id, session_id)

    async def read(self, path: str, limit_bytes: int) -> bytes:
        """A file's content. Raises TooLarge, FileNotFoundError, Aborted (it was changed while it was read)."""
        async with self._place.read(self._home, _named(path)) as reading:
            if (reading.found.size_bytes or 0) > limit_bytes:
                raise TooLarge(f"{path} is larger than {limit_bytes} bytes")
            return b"".join([piece async for piece in reading.pieces(0)])

    async def write(self, path: str, content: bytes) -> None:
        """Make or replace a file at once."""
        names, upload_id = _named(path), uuid4()
        try:
            async with self._place.receive(self._home, upload_id, 0) as receiver:
                await receiver.write(content)
                await receiver.seal()
            await self._place.publish(self._home, upload_id, names)
        except BaseException:
            await to_the_end(self._place.discard(self._home, upload_id))
            raise

    async def entries(self, path: str, *, recursive: bool, limit: int) -> list[Entry]:
        """What lies in a folder, by name; `recursive`: all files below it. Raises FileNotFoundError."""
        names, found, after = normalise(path), list[Entry](), ""
        while True:
            size = min(_PAGE, limit - len(found))
            listed = await self._place.list(self._home, names, recursive=recursive, after=after, limit=size)
            found += [Entry(each.path, each.size_bytes) for each in listed.found]
            after = listed.after
            if not after or len(found) >= limit:
                break
        if names and not found:
            raise FileNotFoundError(path)
        return found


def _named(path: str) -> tuple[str, ...]:
    names = normalise(path)
    if not names:
        raise PathRefused("a file's name is needed")
    return names
