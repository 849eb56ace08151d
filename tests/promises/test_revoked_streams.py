"""A stream lives no longer than its caller's right to call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import grpc
import pytest
from stationmaster.v1 import identity_pb2, session_pb2
from stationmaster.v1.identity_pb2_grpc import IdentityServiceStub
from stationmaster.v1.session_pb2_grpc import SessionServiceStub

from tests.fixtures.server import RunningServer
from tests.rpc.served import reason_of

LIMIT = 30


@asynccontextmanager
async def watching(server: RunningServer, key: str) -> AsyncIterator[asyncio.Task[None]]:
    """Somebody who watches a session of their own, and has seen its first event."""
    async with server.channel(key) as channel:
        stub: Any = SessionServiceStub(channel)
        made = session_pb2.Session()
        made.spec.model = "demo"
        session = await stub.CreateSession(session_pb2.CreateSessionRequest(session=made))
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in stub.WatchSession(session_pb2.WatchSessionRequest(name=session.name)):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def make_user_with_keys(identity: Any, count: int) -> tuple[identity_pb2.User, list[Any]]:
    """A member, and so many keys of theirs."""
    user = identity_pb2.User(display_name="A member", email="member@example.com", role=identity_pb2.ROLE_MEMBER)
    made = await identity.CreateUser(identity_pb2.CreateUserRequest(user=user))
    key = identity_pb2.ApiKey(user=made.name, display_name="a key")
    request = identity_pb2.CreateApiKeyRequest(api_key=key)
    return made, [await identity.CreateApiKey(request) for _ in range(count)]


async def end_of(stream: asyncio.Task[None]) -> grpc.aio.AioRpcError:
    """What a stream ends with, within a second."""
    began = monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stream
    assert monotonic() - began < 1
    return ended.value


async def test_the_streams_of_a_revoked_key_end_and_no_others(server: RunningServer) -> None:
    async with asyncio.timeout(LIMIT), server.channel() as channel:
        identity: Any = IdentityServiceStub(channel)
        _, (key, other) = await make_user_with_keys(identity, 2)
        async with watching(server, key.secret) as stream, watching(server, other.secret) as bystander:
            await identity.RevokeApiKey(identity_pb2.RevokeApiKeyRequest(name=key.api_key.name))
            error = await end_of(stream)
            assert not bystander.done()
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error) == "CREDENTIALS_REVOKED"


async def test_the_streams_of_a_disabled_user_end_and_no_others(server: RunningServer) -> None:
    async with asyncio.timeout(LIMIT), server.channel() as channel:
        identity: Any = IdentityServiceStub(channel)
        user, (key,) = await make_user_with_keys(identity, 1)
        async with watching(server, key.secret) as stream, watching(server, server.admin_key) as bystander:
            await identity.DisableUser(identity_pb2.DisableUserRequest(name=user.name))
            error = await end_of(stream)
            assert not bystander.done()
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of(error) == "USER_DISABLED"
