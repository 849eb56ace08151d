"""The echo: a bare grpc.aio server on uvloop that answers with so many bytes, and streams so many messages.

`/echo.Echo/{size}` answers any request with `size` bytes. `/echo.Stream/{size}-{count}` sends `count` messages of
`size` bytes, one event each, and ends; with count 0 it sends one message and stays open (the idle stream).
"""

from __future__ import annotations

import asyncio
import sys
from functools import cache
from typing import TypeAlias

import grpc

from benchmarks.floors.server import Context, serve

Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


class Echo(grpc.GenericRpcHandler):
    """Makes a handler for each path once."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of a path."""
        _, service, method = handler_call_details.method.split("/")
        return _unary(int(method)) if service == "echo.Echo" else _stream(*map(int, method.split("-")))


@cache
def _unary(size: int) -> Handler:
    answer = b"x" * size

    async def echo(request: bytes, context: Context) -> bytes:
        return answer

    return grpc.unary_unary_rpc_method_handler(echo)


@cache
def _stream(size: int, count: int) -> Handler:
    message = b"x" * size

    async def stream(request: bytes, context: Context) -> None:
        if not count:
            await context.write(message)
            await asyncio.get_running_loop().create_future()
        for _ in range(count):
            await context.write(message)

    return grpc.unary_stream_rpc_method_handler(stream)


async def _prepare(server: grpc.aio.Server) -> None:
    server.add_generic_rpc_handlers((Echo(),))


if __name__ == "__main__":
    serve(int(sys.argv[1]), _prepare)
