"""Calls with one answer: what each carries, what is repeated, and how long it may take."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from stationmaster.v1 import session_pb2
from stationmaster_client import Client, deadline, errors

from tests.client.stand_in import SESSION, serving, unavailable


async def test_unavailable_is_tried_again_under_the_same_request_id() -> None:
    ids: list[str] = []

    async def create(request: session_pb2.CreateSessionRequest, context: Any) -> session_pb2.Session:
        ids.append(request.request_id)
        if len(ids) < 3:
            await unavailable(context)
        return session_pb2.Session(name=SESSION)

    async with serving(CreateSession=create) as target, Client.connect(target) as client:
        assert (await client.sessions.create("helper")).name == SESSION
    assert len(ids) == 3
    assert len(set(ids)) == 1
    UUID(ids[0])


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
async def test_nothing_but_unavailable_is_tried_again(code: grpc.StatusCode) -> None:
    calls = 0

    async def get(request: session_pb2.GetSessionRequest, context: Any) -> session_pb2.Session:
        nonlocal calls
        calls += 1
        await context.abort(code, "no")
        raise AssertionError

    async with serving(GetSession=get) as target, Client.connect(target) as client:
        with pytest.raises(errors.CLASSES[code]):
            await client.sessions.get(SESSION)
    assert calls == 1


async def test_each_mutation_has_an_id_of_its_own_unless_the_caller_gives_one() -> None:
    ids: list[str] = []

    async def create(request: session_pb2.CreateSessionRequest, context: Any) -> session_pb2.Session:
        ids.append(request.request_id)
        return session_pb2.Session()

    own = "01890000-0000-7000-8000-0000000000ff"
    async with serving(CreateSession=create) as target, Client.connect(target) as client:
        await client.sessions.create("helper")
        await client.sessions.create("helper")
        await client.sessions.create("helper", request_id=own)
    assert len(set(ids)) == 3
    assert ids[2] == own


async def test_the_key_and_the_deadline_reach_the_server() -> None:
    seen: dict[str, Any] = {}

    async def get(request: session_pb2.GetSessionRequest, context: Any) -> session_pb2.Session:
        seen.update(context.invocation_metadata(), left=context.time_remaining(), name=request.name)
        return session_pb2.Session()

    async with serving(GetSession=get) as target, Client.connect(target, "sm_secret") as client:
        with deadline(timedelta(seconds=5)), deadline(timedelta(seconds=50)):
            await client.sessions.get("01890000-0000-7000-8000-000000000001")
        assert 3 < seen["left"] < 6, "the earlier deadline holds"
        await client.sessions.get(SESSION)
        assert 28 < seen["left"] < 31
    assert seen["authorization"] == "Bearer sm_secret"
    assert seen["name"] == SESSION


async def test_a_deadline_that_passes_raises_and_frees_the_call() -> None:
    ended = asyncio.Event()

    async def get(request: session_pb2.GetSessionRequest, context: Any) -> session_pb2.Session:
        context.add_done_callback(lambda _: ended.set())
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(GetSession=get) as target, Client.connect(target, timeout=timedelta(seconds=0.2)) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.sessions.get(SESSION)
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_list_goes_over_all_pages() -> None:
    async def pages(request: session_pb2.ListSessionsRequest, context: Any) -> session_pb2.ListSessionsResponse:
        assert (request.filter, request.page_size) == ("state = ACTIVE", 2)
        start = int(request.page_token or 0)
        sessions = [session_pb2.Session(display_name=str(number)) for number in range(start, min(start + 2, 5))]
        token = str(start + 2) if start + 2 < 5 else ""
        return session_pb2.ListSessionsResponse(sessions=sessions, next_page_token=token)

    async with serving(ListSessions=pages) as target, Client.connect(target) as client:
        listing = client.sessions.list(filter="state = ACTIVE", page_size=2)
        assert [session.display_name async for session in listing] == ["0", "1", "2", "3", "4"]
        assert [len(page.sessions) async for page in listing.pages()] == [2, 2, 1]
