"""A TCP relay that counts what passes, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.processes import free_port


class Proxy:
    """Relays to a target and counts."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.partition(":")
        self._target_port = int(port)
        self.port = free_port()
        self.counted = 0

    @property
    def target(self) -> str:
        """Where to connect instead."""
        return f"127.0.0.1:{self.port}"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until both ends have ended."""
        there, back = await asyncio.open_connection(self._host, self._target_port)
        await asyncio.gather(self._relay(reader, back), self._relay(there, writer))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.counted += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[Proxy]:
    """A relay for as long as the block."""
    made = Proxy(target)
    server = await asyncio.start_server(made.connected, "127.0.0.1", made.port)
    try:
        yield made
    finally:
        server.close()
