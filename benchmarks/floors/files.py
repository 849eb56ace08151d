"""The floor of files: a bare grpc.aio server that writes what comes to a file and sends a file, a piece at a time.

`/files.Files/Put` takes a stream of pieces, keeps them (fsync) and answers how many bytes there are; `/files.Files/Get`
sends them, and deletes the file: each run makes a new one, as ours does. No checksum, no quota, no audit, nothing
aside. While a thread has one piece, the next is on its way.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from benchmarks.floors.server import Context, serve

PIECE_BYTES = 1024 * 1024


class Files(grpc.GenericRpcHandler):
    """One file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The handler of a path."""
        if handler_call_details.method.endswith("/Put"):
            return grpc.stream_unary_rpc_method_handler(self._put)
        return grpc.unary_stream_rpc_method_handler(self._get)

    async def _put(self, pieces: AsyncIterator[bytes], context: Context) -> bytes:
        loop, size = asyncio.get_running_loop(), 0
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            writing: asyncio.Future[int] | None = None
            async for piece in pieces:
                if writing is not None:
                    size += await writing
                writing = loop.run_in_executor(None, os.write, file, piece)
            if writing is not None:
                size += await writing
            await loop.run_in_executor(None, os.fsync, file)
        finally:
            os.close(file)
        return str(size).encode()

    async def _get(self, request: bytes, context: Context) -> None:
        loop = asyncio.get_running_loop()
        file = os.open(self._path, os.O_RDONLY)
        try:
            ahead = loop.run_in_executor(None, os.read, file, PIECE_BYTES)
            while piece := await ahead:
                ahead = loop.run_in_executor(None, os.read, file, PIECE_BYTES)
                await context.write(piece)
        finally:
            os.close(file)
            self._path.unlink()


async def _prepare(server: grpc.aio.Server) -> None:
    server.add_generic_rpc_handlers((Files(Path(sys.argv[2])),))


if __name__ == "__main__":
    serve(int(sys.argv[1]), _prepare)
