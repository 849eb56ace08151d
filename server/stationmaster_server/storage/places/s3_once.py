"""Copies of audit checkpoints beside the files of workspaces, each written once."""

from __future__ import annotations

from stationmaster_server.errors import Unavailable
from stationmaster_server.storage.places.s3_store import Objects


class WrittenOnce:
    """The objects `checkpoints/{organization}/{size}.checkpoint`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def write(self, name: str, note: str) -> str | None:
        """Write a checkpoint unless there is one of this name; that one's text, None when this is the first.

        Raises OSError.
        """
        key = f"checkpoints/{name}.checkpoint"
        try:
            if await self._objects.put_once(key, note.encode()):
                return None
            return (await self._objects.get(key)).decode()
        except Unavailable as error:
            raise OSError(str(error)) from None
