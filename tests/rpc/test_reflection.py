"""Reflection: both versions tell the same."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2 as alpha
from stationmaster_server.config import ServerSettings

from tests.rpc.echo import SERVICE
from tests.rpc.served import ALL, Served, refused, serving, with_key

VERSIONS = ("v1", "v1alpha")


def types_of(version: str) -> tuple[Any, Any]:
    """The request and response classes of a version, from its own descriptor."""
    if version == "v1alpha":
        return alpha.ServerReflectionRequest, alpha.ServerReflectionResponse
    pool = descriptor_pool.Default()
    names = (f"grpc.reflection.{version}.ServerReflection{kind}" for kind in ("Request", "Response"))
    request, response = (message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
    return request, response


def method(channel: grpc.aio.Channel, version: str) -> Any:
    """The method of a version's reflection service."""
    request, response = types_of(version)
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    return channel.stream_stream(path, request.SerializeToString, response.FromString)


async def ask(target: str, version: str, key: str | None = None, **question: str) -> Any:
    """One answer of a version's reflection service."""
    request, _ = types_of(version)
    async with grpc.aio.insecure_channel(target) as channel:
        questions = iter([request(**question)])
        return await method(channel, version)(questions, metadata=with_key(key) if key else None).read()


async def refusal(target: str, key: str | None = None) -> grpc.StatusCode:
    """The status that the server refuses to reflect with."""
    async with grpc.aio.insecure_channel(target) as channel:
        return (await refused(method(channel, "v1"), metadata=with_key(key) if key else None)).code()


@pytest.mark.parametrize("version", VERSIONS)
async def test_both_versions_list_every_service(served: Served, version: str) -> None:
    answer = await ask(served.target, version, list_services="")
    assert {service.name for service in answer.list_services_response.service} == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("symbol", [SERVICE, *(f"grpc.reflection.{each}.ServerReflection" for each in VERSIONS)])
async def test_both_versions_describe_services_and_what_they_import(served: Served, version: str, symbol: str) -> None:
    answer = await ask(served.target, version, file_containing_symbol=symbol)
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in answer.file_descriptor_response.file_descriptor_proto
    ]
    package, _, name = symbol.rpartition(".")
    (owner,) = [file for file in files if file.package == package]
    assert name in [service.name for service in owner.service]
    assert {dependency for file in files for dependency in file.dependency} <= {file.name for file in files}


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_unknown_symbol_is_an_answer_and_no_failure(served: Served, version: str) -> None:
    answer = await ask(served.target, version, file_containing_symbol="no.such.Thing")
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_reflection_can_be_closed_to_strangers_or_turned_off() -> None:
    async with serving(ServerSettings(port=0, open_reflection=False)) as served:
        assert await refusal(served.target) is grpc.StatusCode.UNAUTHENTICATED
        assert await ask(served.target, "v1", ALL, list_services="")
    async with serving(ServerSettings(port=0, reflection=False)) as served:
        assert await refusal(served.target, ALL) is grpc.StatusCode.UNIMPLEMENTED
