"""A small HTTP/1.1 client over one kept connection: it costs less than the common ones, which favours the peers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any


class HttpError(Exception):
    """An answer that is none of 2xx."""


class Http:
    """One connection, one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, kind: str) -> bytes:
        """The whole answer."""
        return b"".join([chunk async for chunk in self.stream(path, body, kind)])

    async def post_json(self, path: str, body: object) -> Any:
        """The answer, read as JSON."""
        return json.loads(await self.post(path, json.dumps(body).encode(), "application/json"))

    async def stream(self, path: str, body: bytes, kind: str) -> AsyncIterator[bytes]:
        """The answer in the pieces that the server sent."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=16 << 20)
        reader, writer = self._streams
        host = f"{self._host}:{self._port}"
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        status, headers = await _head(reader)
        pieces = [piece async for piece in _body(reader, headers)] if not 200 <= status < 300 else None
        if pieces is not None:
            raise HttpError(f"{path}: {status} {b''.join(pieces)[:200]!r}")
        async for piece in _body(reader, headers):
            yield piece
        if headers.get("connection") == "close":
            await self.close()

    async def events(self, path: str, body: bytes, kind: str) -> AsyncIterator[Any]:
        """The `data` of server-sent events, read as JSON, one as soon as it is whole."""
        rest = b""
        async for piece in self.stream(path, body, kind):
            *whole, rest = (rest + piece.replace(b"\r\n", b"\n")).split(b"\n\n")
            for event in whole:
                for line in event.split(b"\n"):
                    if line.startswith(b"data:"):
                        yield json.loads(line[5:])

    async def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines if line)
    return int(first.split()[1]), {key.strip().lower(): value.strip().lower() for key, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    elif length := int(headers.get("content-length", 0)):
        yield await reader.readexactly(length)
