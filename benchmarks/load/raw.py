"""A conversation with the raw floor."""

from __future__ import annotations

import time

from benchmarks.load.channel import DEADLINE, channel, stream_call, unary_call
from benchmarks.load.conversation import Reply, expected


class Raw:
    """Over one connection, bytes for bytes."""

    def __init__(self, target: str) -> None:
        self._channel = channel(target)
        self._create = unary_call(self._channel, "/raw.Raw/Create")
        self._send = stream_call(self._channel, "/raw.Raw/Send")

    async def create(self) -> str:
        """A new session."""
        return (await self._create(b"", timeout=DEADLINE)).hex()

    async def send(self, session: str, words: int) -> Reply:
        """Ask for so many words."""
        text: list[bytes] = []
        first = 0.0
        began = time.perf_counter()
        async for word in self._send(bytes.fromhex(session) + b"%d" % words, timeout=DEADLINE):
            first = first or time.perf_counter() - began
            text.append(word)
        return Reply(first, time.perf_counter() - began, b"".join(text).decode() == expected(words))

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()
