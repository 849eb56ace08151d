"""The raw floor of a conversation: raw bytes over grpc.aio, and SQLite with full durability.

No types, no authentication, no validation, no tenants, no audit. A session is a row; a message is a row; the answer is
streamed one word a message and is a row once it is whole. Each row is committed (WAL, `synchronous = FULL`) before it
is answered for. One thread owns the connection, as SQLite has one writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc

from benchmarks.floors.server import Context, serve

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE sessions (id BLOB PRIMARY KEY);
CREATE TABLE messages (session BLOB, role TEXT, text BLOB);
"""


class Raw:
    """Two methods and one writer thread."""

    def __init__(self, path: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.executescript(_SCHEMA)

    async def create(self, request: bytes, context: Context) -> bytes:
        """A session, committed."""
        session = uuid.uuid4().bytes
        await self._commit("INSERT INTO sessions VALUES (?)", session)
        return session

    async def send(self, request: bytes, context: Context) -> None:
        """A message (16 bytes of session, then how many words to say), and the answer word by word."""
        session, count = request[:16], int(request[16:])
        await self._commit("INSERT INTO messages VALUES (?, 'user', ?)", session, request[16:])
        words = [b" word%d" % number if number > 1 else b"word1" for number in range(1, count + 1)]
        for word in words:
            await context.write(word)
        await self._commit("INSERT INTO messages VALUES (?, 'assistant', ?)", session, b"".join(words))

    async def _commit(self, sql: str, *values: bytes) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.execute, sql, values)


async def _prepare(server: grpc.aio.Server) -> None:
    raw = Raw(sys.argv[2])
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Create": grpc.unary_unary_rpc_method_handler(raw.create),
        "Send": grpc.unary_stream_rpc_method_handler(raw.send),
    }
    server.add_registered_method_handlers("raw.Raw", handlers)


if __name__ == "__main__":
    serve(int(sys.argv[1]), _prepare)
