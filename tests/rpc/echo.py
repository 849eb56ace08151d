"""The echo service of the transport's tests: compiled from its proto, served through the real chain."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import grpc_tools

# The echo proto imports these.
from buf.validate import validate_pb2 as _validate_pb2  # noqa: F401
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc
from stationmaster.v1 import options_pb2 as _options_pb2  # noqa: F401

SERVICE = "stationmaster.tests.EchoService"


@cache
def messages() -> tuple[Any, Any]:
    """The classes EchoRequest and EchoResponse."""
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "echo.bin"
        well_known = Path(grpc_tools.__file__).parent / "_proto"
        include = [f"-I{folder}" for folder in (Path(__file__).parent, root / "protos", well_known)]
        compile_proto: Any = protoc.main
        assert compile_proto(["protoc", *include, f"--descriptor_set_out={out}", "echo.proto"]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(files.file[0].SerializeToString())
    names = ("EchoRequest", "EchoResponse")
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"stationmaster.tests.{name}")) for name in names
    )
    return request, response


@dataclass
class Echo:
    """Does what a test says, and counts what reached it."""

    behave: Callable[[Any, Any], Awaitable[None]] | None = None
    reached: int = 0
    ended: list[str] = field(default_factory=list)
    blocked: asyncio.Event = field(default_factory=asyncio.Event)

    async def echo(self, request: Any, context: Any) -> Any:
        """Answer the text, after what the test wants done."""
        self.reached += 1
        try:
            if self.behave is not None:
                await self.behave(request, context)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        return messages()[1](text=request.text)

    async def count(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Answer the text `times` times; when that is zero, once and then wait for ever."""
        self.reached += 1
        try:
            for number in range(max(request.times, 1)):
                yield messages()[1](text=f"{request.text}{number}")
            if request.times == 0:
                self.blocked.set()
                await asyncio.Event().wait()
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise

    async def join(self, requests: AsyncIterator[Any], context: Any) -> Any:
        """Answer the texts joined."""
        return messages()[1](text="".join([request.text async for request in requests]))

    async def chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Answer each text."""
        async for request in requests:
            yield messages()[1](text=request.text)


def register(echo: Echo, server: Any) -> None:
    """Add the service to a server as generated code does."""
    request, response = messages()
    codec = (request.FromString, response.SerializeToString)
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo.echo, *codec),
        "Guarded": grpc.unary_unary_rpc_method_handler(echo.echo, *codec),
        "Count": grpc.unary_stream_rpc_method_handler(echo.count, *codec),
        "Join": grpc.stream_unary_rpc_method_handler(echo.join, *codec),
        "Chat": grpc.stream_stream_rpc_method_handler(echo.chat, *codec),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


class EchoStub:
    """Calls the service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        request, response = messages()
        codec = (request.SerializeToString, response.FromString)
        self.echo = channel.unary_unary(f"/{SERVICE}/Echo", *codec)
        self.guarded = channel.unary_unary(f"/{SERVICE}/Guarded", *codec)
        self.count = channel.unary_stream(f"/{SERVICE}/Count", *codec)
        self.join = channel.stream_unary(f"/{SERVICE}/Join", *codec)
        self.chat = channel.stream_stream(f"/{SERVICE}/Chat", *codec)
