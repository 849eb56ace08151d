"""As much of HTTP as the relay needs: one call on each connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """What a call begins with. Names of headers are lower-case."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


async def read_head(reader: asyncio.StreamReader) -> Head:
    """The head of a call. Raises ValueError, IncompleteReadError, LimitOverrunError."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return Head(method, target, headers)


async def read_body(reader: asyncio.StreamReader, head: Head) -> bytes:
    """The body of a call. Raises ValueError when it says no length, or too great a one; IncompleteReadError."""
    length = int(head.headers.get("content-length", "-1"))
    if not 0 <= length <= MAX_BODY_BYTES:
        raise ValueError(f"a call of {length} bytes")
    return await reader.readexactly(length)


def begin(writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str]) -> None:
    """Begin an answer, whose body comes in chunks."""
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    lines += ["transfer-encoding: chunked", "connection: close"]
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")


async def send(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    """A chunk of the body; an empty one ends it."""
    writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    await writer.drain()


async def refuse(writer: asyncio.StreamWriter, status: int, kind: str, message: str) -> None:
    """A whole answer: an error as the provider tells one."""
    begin(writer, status, {"content-type": "application/json", "x-should-retry": "false"})
    await send(writer, json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode())
    await send(writer, b"")
