"""What the transport knows of a method before anybody calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from stationmaster.v1 import options_pb2

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""A servicer's method, as grpc registers it."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service that this server serves."""

    path: str
    """`/stationmaster.v1.AgentService/GetAgent`."""
    scope: str
    """The scope that a caller needs; empty means that any authenticated caller may call it."""
    open: bool
    """Answered without authentication."""
    request_type: type[Message]
    request_streaming: bool
    response_streaming: bool

    @property
    def service(self) -> str:
        """The service's full name."""
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """The method's own name."""
        return self.path.split("/")[2]

    @property
    def streaming(self) -> bool:
        """Whether either side sends more than one message."""
        return self.request_streaming or self.response_streaming


def describe(service: str, name: str, *, open_to_all: bool = False) -> Method:
    """Read a method's facts from its descriptor. A KeyError means that its proto was not imported."""
    descriptor: MethodDescriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    return Method(
        path=f"/{service}/{name}",
        scope=descriptor.GetOptions().Extensions[options_pb2.scope],
        open=open_to_all,
        request_type=message_factory.GetMessageClass(descriptor.input_type),
        request_streaming=descriptor.client_streaming,
        response_streaming=descriptor.server_streaming,
    )
