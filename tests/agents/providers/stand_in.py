"""A small HTTP server that answers by a script and tells what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.agents.providers.waiting import LIMIT


class End(Enum):
    """How an answer ends."""

    WHOLE = "as HTTP wants it"
    BREAK = "the connection is cut"
    EARLY = "as HTTP wants it, but before the protocol's own end"
    HANG = "not at all: until the client goes"


@dataclass(frozen=True)
class Reply:
    """An answer: the chunks of its body."""

    chunks: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    end: End = End.WHOLE


@dataclass(frozen=True)
class Request:
    """What was asked."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class StandIn:
    """The server. `client_gone` is set when a client has closed a connection whose answer hangs."""

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.requests: list[Request] = []
        self.hanging = asyncio.Event()
        self.client_gone = asyncio.Event()
        self.url = ""

    def reply(self, *replies: Reply) -> None:
        """What to answer next."""
        self.replies.extend(replies)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _read(reader)
        if request is None:
            return False
        self.requests.append(request)
        reply = self.replies.popleft() if self.replies else Reply([b'{"error": {"message": "no reply left"}}'], 400)
        kind = "text/event-stream" if reply.status == 200 else "application/json"
        headers = {"content-type": kind, "transfer-encoding": "chunked", **reply.headers}
        head = f"HTTP/1.1 {reply.status} Whatever\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        writer.write(head.encode() + b"\r\n")
        for chunk in reply.chunks:
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()
        if reply.end is End.HANG:
            self.hanging.set()
            await reader.read()
            self.client_gone.set()
            return False
        if reply.end is End.BREAK:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@asynccontextmanager
async def stand_in() -> AsyncIterator[StandIn]:
    """A server on a free port of the loopback."""
    server = StandIn()
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        await server.serve(reader, writer)
        connections.discard(task)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections, timeout=LIMIT)


def sse(data: dict[str, Any] | str, event: str = "") -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(first.split()[1], headers, json.loads(body or b"{}"))
