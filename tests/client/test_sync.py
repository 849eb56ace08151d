"""SyncClient: the same code as Client, not a copy of it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from stationmaster.v1 import session_pb2
from stationmaster_client import Client, SyncClient, errors, sync

from tests.client.stand_in import SESSION, TURN, delta, finished, sent, serving, watched

PARTS = {
    name: (part, getattr(sync, f"Sync{part}"))
    for name, part in {
        "sessions": "Sessions",
        "permissions": "Permissions",
        "agents": "Agents",
        "prompts": "Prompts",
        "experiments": "Experiments",
        "mcp": "Mcp",
        "tasks": "Tasks",
        "executions": "Executions",
        "files": "Files",
        "archives": "Archives",
        "reports": "Reports",
        "credentials": "Credentials",
        "organizations": "Organizations",
        "users": "Users",
        "keys": "Keys",
        "quotas": "Quotas",
        "audit": "Audit",
        "maintenance": "Maintenance",
        "health": "Health",
    }.items()
}


def public(cls: type[Any]) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}


@pytest.mark.parametrize("part", PARTS)
def test_every_method_is_on_both_clients(part: str) -> None:
    name, face = PARTS[part]
    assert public(face) == public(getattr(sync, name))


async def test_every_part_is_on_both_clients() -> None:
    async with Client.connect("localhost:1") as client:
        parts = {name for name in vars(client) if not name.startswith("_")}
    assert parts == {*PARTS, "connection"}


async def test_calls_streams_and_errors_pass_through() -> None:
    async def get(request: session_pb2.GetSessionRequest, context: Any) -> session_pb2.Session:
        if request.name != SESSION:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such session")
        return session_pb2.Session(name=request.name)

    async def send(
        request: session_pb2.SendMessageRequest, context: Any
    ) -> AsyncIterator[session_pb2.SendMessageResponse]:
        yield sent(delta(1), delta(2), turn=TURN)
        yield sent(finished(3))

    def use(target: str) -> None:
        with SyncClient.connect(target) as client:
            assert client.sessions.get(SESSION).name == SESSION
            assert [event.sequence for event in client.sessions.send(SESSION, "hello")] == [1, 2, 3]
            with pytest.raises(errors.NotFound):
                client.sessions.get("sessions/other")

    async with serving(GetSession=get, SendMessage=send) as target:
        await asyncio.to_thread(use, target)


async def test_leaving_a_loop_early_ends_the_call_on_the_server() -> None:
    ended = asyncio.Event()

    async def watch(
        request: session_pb2.WatchSessionRequest, context: Any
    ) -> AsyncIterator[session_pb2.WatchSessionResponse]:
        context.add_done_callback(lambda _: ended.set())
        yield watched(delta(1), delta(2))
        await asyncio.Event().wait()

    def use(target: str) -> None:
        with SyncClient.connect(target) as client:
            for event in client.sessions.watch(SESSION):
                assert event.sequence == 1
                break

    async with serving(WatchSession=watch) as target:
        await asyncio.to_thread(use, target)
        async with asyncio.timeout(5):
            await ended.wait()


async def test_leaving_a_with_block_ends_the_call_while_the_stream_is_still_held() -> None:
    ended = asyncio.Event()

    async def send(
        request: session_pb2.SendMessageRequest, context: Any
    ) -> AsyncIterator[session_pb2.SendMessageResponse]:
        context.add_done_callback(lambda _: ended.set())
        yield sent(delta(1), delta(2), turn=TURN)
        await asyncio.Event().wait()

    def use(target: str, loop: asyncio.AbstractEventLoop) -> None:
        with SyncClient.connect(target) as client:
            with client.sessions.send(SESSION, "hello") as events:
                assert next(events).sequence == 1
            assert asyncio.run_coroutine_threadsafe(asyncio.wait_for(ended.wait(), 5), loop).result()
            assert list(events) == []

    async with serving(SendMessage=send) as target:
        await asyncio.to_thread(use, target, asyncio.get_running_loop())


def test_closing_ends_the_thread() -> None:
    with SyncClient.connect("localhost:1"):
        assert any(thread.name == "stationmaster-client" for thread in threading.enumerate())
    assert not any(thread.name == "stationmaster-client" for thread in threading.enumerate())
