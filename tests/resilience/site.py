"""An HTTP server on loopback that answers what a test wrote."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = bytes
SILENCE = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe beginning"
"""A response that never ends."""


@dataclass
class Site:
    """What it was asked, and over how many connections."""

    port: int = 0
    answers: Mapping[str, Answer | Callable[[bytes], Answer]] = field(default_factory=dict)
    """By the path; a function gets the body."""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        self.tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                path = head[0].split()[1]
                self.requests.append((path, headers, body))
                found = self.answers.get(path, answer(b"hello"))
                response = found(body) if callable(found) else found
                writer.write(response)
                await writer.drain()
                if b"Connection: close" in response:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client went
        finally:
            writer.close()


def answer(body: bytes, *headers: str, status: int = 200) -> Answer:
    """A whole response."""
    lines = [f"HTTP/1.1 {status} Answer", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(where: str, status: int = 302) -> Answer:
    """A response that leads elsewhere."""
    return answer(b"", f"Location: {where}", status=status)


@asynccontextmanager
async def serve(
    answers: Mapping[str, Answer | Callable[[bytes], Answer]] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    """A site on a free port of 127.0.0.1."""
    site = Site(answers=answers or {})
    server = await asyncio.start_server(site.accept, "127.0.0.1", 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for task in site.tasks:
            task.cancel()
        await asyncio.gather(*site.tasks, return_exceptions=True)
