"""Server reflection, v1 and v1alpha. grpcio-reflection ships v1alpha alone.

The two differ in the name of their package and in nothing on the wire, so v1 is the same servicer under the other name;
its descriptor is made from that of v1alpha, so that v1 can describe itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from stationmaster_server.rpc.method import Handler

SERVICE_V1 = "grpc.reflection.v1.ServerReflection"
SERVICE_V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
_METHOD = "ServerReflectionInfo"


def handlers(services: Iterable[str]) -> dict[str, dict[str, Handler]]:
    """Return the method handlers of both services, by service name; they tell of `services` and of themselves."""
    _describe_v1()
    make: Callable[[Iterable[str]], Any] = aio.ReflectionServicer
    servicer = make((*services, SERVICE_V1, SERVICE_V1ALPHA))
    handler: Handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return {SERVICE_V1: {_METHOD: handler}, SERVICE_V1ALPHA: {_METHOD: handler}}


def _describe_v1() -> None:
    """Put `grpc/reflection/v1/reflection.proto` into the descriptor pool unless something else has."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(SERVICE_V1)
    except KeyError:
        alpha = reflection_pb2.DESCRIPTOR.serialized_pb
        file = descriptor_pb2.FileDescriptorProto.FromString(alpha)
        file.name = file.name.replace("v1alpha", "v1")
        file.package = file.package.replace("v1alpha", "v1")
        for message in file.message_type:
            _rename(message)
        for service in file.service:
            for method in service.method:
                method.input_type = method.input_type.replace("v1alpha", "v1")
                method.output_type = method.output_type.replace("v1alpha", "v1")
        pool.Add(file)


def _rename(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        if field.type_name:
            field.type_name = field.type_name.replace("v1alpha", "v1")
    for nested in message.nested_type:
        _rename(nested)
