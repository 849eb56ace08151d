"""Arguments of a tool call that no message or column can hold as they are: the session goes on and can be read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from stationmaster.v1 import agent_pb2, event_pb2
from stationmaster_client import Client

from tests.fixtures.server import RunningServer


@pytest_asyncio.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    async with Client.connect(server.target, server.admin_key, insecure=True) as made:
        yield made


def nested(levels: int) -> str:
    """JSON that is so deep."""
    inner: Any = 1
    for _ in range(levels):
        inner = {"a": inner}
    return json.dumps(inner)


@pytest.mark.parametrize(
    "arguments",
    [nested(34), nested(150), '{"expression": NaN}', '{"expression": -Infinity}', '{"a": 1' + "0" * 400 + "}"],
    ids=["deep", "very deep", "nan", "infinite", "huge"],
)
async def test_a_call_with_arguments_that_no_message_holds_ends_neither_the_turn_nor_its_stream(
    client: Client, arguments: str
) -> None:
    session = (await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo", tools=["math.*"]))).name
    async with client.sessions.send(session, f"/tool math.evaluate {arguments}\n/say 2") as stream:
        events = [event async for event in stream]
    assert events[-1].turn_finished.state == event_pb2.TURN_STATE_COMPLETED, events[-1]
    (finished,) = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert finished.result.is_error
    page = await client.sessions.messages(session, page_size=10).page()
    assert len(page.messages) == 4
