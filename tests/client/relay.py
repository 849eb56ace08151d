"""A TCP relay before a server, whose connections a test cuts wherever it wants, in the middle of a message too."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Relay:
    """Passes bytes on; a connection is cut after `limit` bytes from the server, the next one after half as many more.

    So that in the end even the largest message comes through. `upwards`: bytes to the server count.
    """

    def __init__(self, target: str, limit: int, *, upwards: bool = False) -> None:
        self.limit = limit
        self._upwards = upwards
        self.cuts = 0
        self.target = ""
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, back}
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.wait(
                [
                    asyncio.create_task(self._pass(reader, back, self.limit if self._upwards else math.inf)),
                    asyncio.create_task(self._pass(there, writer, math.inf if self._upwards else self.limit)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        writer.transport.abort()
        back.transport.abort()
        self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: float) -> None:
        passed = 0
        with suppress(OSError):
            while data := await reader.read(4096):
                if passed + len(data) > limit:
                    writer.write(data[: int(limit) - passed])
                    self.cuts += 1
                    self.limit += self.limit // 2
                    return
                passed += len(data)
                writer.write(data)
                await writer.drain()

    def close(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def relaying(target: str, *, cut_after: int, upwards: bool = False) -> AsyncIterator[Relay]:
    """A relay before `target`; connections are cut after so many bytes from it, or (`upwards`) to it."""
    relay = Relay(target, cut_after, upwards=upwards)
    server = await asyncio.start_server(relay.connected, "127.0.0.1", 0)
    relay.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        relay.close()
