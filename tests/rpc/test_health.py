"""Health: which services can do their work now, told to whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from stationmaster_server.rpc.health import HealthBoard

from tests.rpc.echo import SERVICE
from tests.rpc.served import Served, reason_of

Status = health_pb2.HealthCheckResponse
HealthStub: Any = health_pb2_grpc.HealthStub


@pytest_asyncio.fixture
async def health(served: Served) -> AsyncIterator[HealthStub]:
    """A stub without a key: health is open."""
    async with grpc.aio.insecure_channel(served.target) as channel:
        yield HealthStub(channel)


def ask(service: str = "") -> health_pb2.HealthCheckRequest:
    """A question about a service."""
    return health_pb2.HealthCheckRequest(service=service)


async def test_check_tells_the_whole_server_and_each_service(health: HealthStub) -> None:
    for name in ("", SERVICE):
        assert (await health.Check(ask(name))).status == Status.SERVING


async def test_check_of_an_unknown_service_is_not_found(health: HealthStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await health.Check(ask("no.such.Service"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(raised.value) == "RESOURCE_NOT_FOUND"


async def test_list_tells_every_service(health: HealthStub, served: Served) -> None:
    served.board.lose("database", "gone")
    listed = await health.List(health_pb2.HealthListRequest())
    assert {name: answer.status for name, answer in listed.statuses.items()} == {
        "": Status.SERVING,
        SERVICE: Status.NOT_SERVING,
    }


async def test_a_service_without_what_it_needs_is_not_serving_until_it_is_back(
    health: HealthStub, served: Served
) -> None:
    watch = health.Watch(ask(SERVICE))
    assert (await watch.read()).status == Status.SERVING
    served.board.lose("database", "gone")
    assert (await watch.read()).status == Status.NOT_SERVING
    served.board.lose("database", "still gone")
    served.board.regain("database")
    assert (await watch.read()).status == Status.SERVING
    watch.cancel()


async def test_watch_of_an_unknown_service_says_so_and_waits_for_it(health: HealthStub, served: Served) -> None:
    watch = health.Watch(ask("later.Service"))
    assert (await watch.read()).status == Status.SERVICE_UNKNOWN
    served.board.add("later.Service")
    assert (await watch.read()).status == Status.SERVING
    watch.cancel()


async def test_a_drain_is_told_before_the_server_stops_and_ends_every_stream(
    health: HealthStub, served: Served
) -> None:
    watch = health.Watch(ask())
    assert (await watch.read()).status == Status.SERVING
    await served.server.drain(timedelta())
    assert (await health.Check(ask())).status == Status.NOT_SERVING
    assert (await watch.read()).status == Status.NOT_SERVING
    stopping = asyncio.create_task(served.server.stop(timedelta(seconds=20)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await watch.read()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(raised.value) == "SERVER_STOPPING"
    await asyncio.wait_for(stopping, 10)


async def test_a_drained_server_never_serves_again() -> None:
    board = HealthBoard()
    board.require("database")
    board.drain()
    board.lose("database", "gone")
    board.regain("database")
    assert board.status("") == Status.NOT_SERVING
