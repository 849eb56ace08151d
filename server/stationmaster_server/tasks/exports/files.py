"""The files of an export: each is written aside, page by page, and is there when it is whole."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from datetime import timedelta
from typing import Any, BinaryIO, NamedTuple

from stationmaster_server.resilience.pools import Pools
from stationmaster_server.storage.workspace import Workspace
from stationmaster_server.tasks.exports.formats import Writer

_LIMIT = timedelta(minutes=2)
"""For a page, or for the end of a file, on a slow disk."""


class TooLarge(Exception):
    """The file would be larger than it may be."""


class Written(NamedTuple):
    """What a file turned out to be."""

    rows: int
    size_bytes: int
    sha256: str


class Digesting:
    """A file that is written from its beginning to its end, and the digest of that."""

    closed = False
    abandoned = False
    """Its file is gone: whoever still writes, writes nothing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: Any) -> int:
        """Write bytes, or what has some."""
        view = memoryview(data).cast("B")
        if self.abandoned:
            return len(view)
        self._file.write(view)
        self._digest.update(view)
        self._size += len(view)
        return len(view)

    def tell(self) -> int:
        """How much was written."""
        return self._size

    def flush(self) -> None:
        """The end of the file sees to that."""

    def hexdigest(self) -> str:
        """Of what was written."""
        return self._digest.hexdigest()


async def write_file(
    pools: Pools,
    workspace: Workspace,
    path: str,
    pages: AsyncGenerator[list[dict[str, Any]], None],
    make_writer: Callable[[Digesting], Writer],
    *,
    most_bytes: int,
    tell: Callable[[int], None],
) -> Written:
    """Write a file of all pages; `tell` hears of each how many rows it has.

    Raises TooLarge, and what making the writer raises; then there is no file.
    """
    rows, scope = 0, ExitStack()

    def begin() -> tuple[Digesting, Writer]:
        file = Digesting(scope.enter_context(workspace.replacing(path)))
        scope.push(lambda kind, error, trace: setattr(file, "abandoned", kind is not None))
        return file, make_writer(file)

    try:
        file, writer = await pools.blocking(begin, timeout=_LIMIT)
        async with aclosing(pages):
            async for page in pages:
                await pools.blocking(writer.write, page, timeout=_LIMIT)
                rows += len(page)
                tell(len(page))
                _check(file, most_bytes)
        await pools.blocking(writer.close, timeout=_LIMIT)
        _check(file, most_bytes)
    except BaseException as error:
        # In place: even a server that stops leaves no part behind. What was written goes, so it takes no time.
        scope.__exit__(type(error), error, error.__traceback__)
        raise
    await pools.blocking(scope.close, timeout=_LIMIT)
    return Written(rows, file.tell(), file.hexdigest())


def _check(file: Digesting, most_bytes: int) -> None:
    if file.tell() > most_bytes:
        raise TooLarge
