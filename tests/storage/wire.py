"""Stands between a server and its object storage: answers are lost, and requests wait, when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Match = Callable[[str], bool]
"""Of a request's first line: `POST /bucket/key?uploadId=... HTTP/1.1`."""

_GONE = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n<Error><Code>NoSuchUpload</Code></Error>"


def completes(line: str) -> bool:
    """Whether a request has a file appear that is made of several parts."""
    return line.startswith("POST ") and "uploadId=" in line


@dataclass
class Wire:
    """Forwards requests, each over a connection of its own.

    An upload that is complete or aborted is answered for as many stores do, where moto completes it again, or fails.
    """

    upstream: str
    url: str = ""
    lines: list[str] = field(default_factory=list)
    """What was forwarded."""
    _completed: set[str] = field(default_factory=set)
    _lose: Match | None = None
    _losses: int = 0
    _hold: Match | None = None
    _held: asyncio.Event = field(default_factory=asyncio.Event)
    _free: asyncio.Event = field(default_factory=asyncio.Event)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.create_task(self.serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def close(self) -> None:
        """End what is still being served."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def lose(self, match: Match, times: int = 1) -> None:
        """Forward what fits, so often, but never answer it."""
        self._lose, self._losses = match, times

    def hold(self, match: Match) -> None:
        """Let what fits wait until it is let go."""
        self._hold = match
        self._held.clear()
        self._free.clear()

    async def held(self) -> None:
        """Returns once something waits."""
        async with asyncio.timeout(60):
            await self._held.wait()

    def let_go(self) -> None:
        """Forward what waits, and hold no more."""
        self._hold = None
        self._free.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one request."""
        with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            line, *headers = head.decode("latin-1").rstrip().split("\r\n")
            length = next((int(each[15:]) for each in headers if each.lower().startswith("content-length:")), 0)
            body = await reader.readexactly(length)
            if self._hold is not None and self._hold(line):
                self._held.set()
                await self._free.wait()
            kept = [each for each in headers if not each.lower().startswith(("connection:", "expect:"))]
            whole = "\r\n".join([line, *kept, "connection: close", "", ""]).encode("latin-1") + body
            answer = await self._complete(line, whole) if completes(line) else await self._forward(whole)
            self.lines.append(line)
            if self._losses and self._lose is not None and self._lose(line):
                self._losses -= 1
            else:
                writer.write(answer)
                await writer.drain()

    async def _complete(self, line: str, request: bytes) -> bytes:
        if line in self._completed:
            return _GONE
        answer = await self._forward(request)
        if b" 500 " in answer.partition(b"\r\n")[0]:
            return _GONE
        self._completed.add(line)
        return answer

    async def _forward(self, request: bytes) -> bytes:
        parts = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def between(upstream: str) -> AsyncIterator[Wire]:
    """A wire to object storage."""
    wire = Wire(upstream)
    server = await asyncio.start_server(wire.accept, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        wire.let_go()
        server.close()
        await wire.close()
