"""Chatting in one shot, against a server that a test breaks on purpose."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from stationmaster.v1 import event_pb2, session_pb2

from tests.client.cli.program import Program
from tests.client.stand_in import SESSION, TURN, delta, finished, sent, serving, unavailable, watched


async def get(request: session_pb2.GetSessionRequest, context: Any) -> session_pb2.Session:
    return session_pb2.Session(name=request.name)


async def breaking(request: session_pb2.SendMessageRequest, context: Any) -> AsyncIterator[object]:
    yield sent(delta(4), delta(5), turn=TURN)
    await unavailable(context)


async def rest(request: session_pb2.WatchSessionRequest, context: Any) -> AsyncIterator[object]:
    yield watched(delta(6), finished(7))


async def test_a_lost_connection_is_noted_and_the_answer_is_whole(tmp_path: Path) -> None:
    async with serving(GetSession=get, SendMessage=breaking, WatchSession=rest) as target:
        result = await Program(tmp_path, target)("chat", SESSION, "-m", "hello")
    assert result.code == 0, result.err
    assert result.out == "4 5 6 \n"
    assert result.err == "⚡ connection lost, going on after event 5\n↻ connected again\n"


async def test_json_is_one_event_a_line_and_nothing_else(tmp_path: Path) -> None:
    async with serving(GetSession=get, SendMessage=breaking, WatchSession=rest) as target:
        result = await Program(tmp_path, target)("chat", SESSION, "-m", "hello", "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [event["sequence"] for event in events] == ["4", "5", "6", "7"]
    assert "connection lost" in result.err


async def test_the_message_can_come_through_a_pipe(tmp_path: Path) -> None:
    said: list[str] = []

    async def send(request: session_pb2.SendMessageRequest, context: Any) -> AsyncIterator[object]:
        said.append(request.text)
        yield sent(finished(1), turn=TURN)

    async with serving(GetSession=get, SendMessage=send) as target:
        result = await Program(tmp_path, target)("chat", SESSION, "-m", "-", stdin="a long\nstory")
    assert result.code == 0, result.err
    assert said == ["a long\nstory"]


async def test_without_a_terminal_a_permission_ends_the_command_with_the_way_to_answer(tmp_path: Path) -> None:
    name = f"{SESSION}/permissionRequests/01890000-0000-7000-8000-000000000003"
    asked = event_pb2.PermissionRequested(permission_request=name, call=event_pb2.ToolCall(tool="files.write"))

    async def send(request: session_pb2.SendMessageRequest, context: Any) -> AsyncIterator[object]:
        yield sent(event_pb2.Event(sequence=4, turn=TURN, permission_requested=asked), turn=TURN)

    async with serving(GetSession=get, SendMessage=send) as target:
        result = await Program(tmp_path, target)("chat", SESSION, "-m", "write")
    assert result.code == 5
    assert f"stationmaster permissions allow {name}" in result.err


async def test_a_turn_that_a_limit_ended_ends_the_command_with_6(tmp_path: Path) -> None:
    end = event_pb2.TurnFinished(state=event_pb2.TURN_STATE_LIMITED, reason="LIMIT_REACHED", message="too many tokens")

    async def send(request: session_pb2.SendMessageRequest, context: Any) -> AsyncIterator[object]:
        yield sent(event_pb2.Event(sequence=4, turn=TURN, turn_finished=end), turn=TURN)

    async with serving(GetSession=get, SendMessage=send) as target:
        result = await Program(tmp_path, target)("chat", SESSION, "-m", "go")
    assert result.code == 6
