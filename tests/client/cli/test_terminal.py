"""Chatting at a terminal: permissions are asked for, Ctrl-C cancels the turn, a second one leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from stationmaster.v1 import event_pb2, session_pb2

from tests.client.cli.program import Program
from tests.client.cli.terminal import at_terminal
from tests.client.stand_in import SESSION, TURN, finished, sent, serving

REQUEST = f"{SESSION}/permissionRequests/01890000-0000-7000-8000-000000000003"
ALLOW = session_pb2.PERMISSION_DECISION_ALLOW_ONCE
ALWAYS = session_pb2.PERMISSION_DECISION_ALLOW_FOR_SESSION
DENY = session_pb2.PERMISSION_DECISION_DENY


def said(sequence: int, text: str) -> event_pb2.Event:
    return event_pb2.Event(sequence=sequence, turn=TURN, text_delta=event_pb2.TextDelta(text=text))


class Asking:
    """A session whose turns ask for permission once, or run until they are cancelled."""

    def __init__(self) -> None:
        self.answer: session_pb2.ResolvePermissionRequestRequest | None = None
        self.cancelled = asyncio.Event()
        self._answered = asyncio.Event()

    async def get(self, request: session_pb2.GetSessionRequest, context: Any) -> session_pb2.Session:
        return session_pb2.Session(name=request.name, agent="agents/helper")

    async def send(self, request: session_pb2.SendMessageRequest, context: Any) -> AsyncIterator[object]:
        if request.text == "run":
            yield sent(said(1, "running..."), turn=TURN)
            await self.cancelled.wait()
            yield sent(finished(2))
            return
        arguments = Struct()
        arguments.update({"path": "notes.txt", "lines": 2, "content": "one\npath: other.txt"})
        call = event_pb2.ToolCall(call_id="1", tool="files.write", arguments=arguments)
        asked = event_pb2.PermissionRequested(permission_request=REQUEST, call=call)
        yield sent(event_pb2.Event(sequence=4, turn=TURN, permission_requested=asked), turn=TURN)
        await self._answered.wait()
        yield sent(said(5, "written."), finished(6))

    async def resolve(
        self, request: session_pb2.ResolvePermissionRequestRequest, context: Any
    ) -> session_pb2.PermissionRequest:
        self.answer = request
        self._answered.set()
        return session_pb2.PermissionRequest(name=request.name)

    async def cancel(self, request: session_pb2.CancelTurnRequest, context: Any) -> session_pb2.Turn:
        assert request.name == TURN
        self.cancelled.set()
        return session_pb2.Turn(name=request.name)

    def methods(self) -> dict[str, Any]:
        return {
            "GetSession": self.get,
            "SendMessage": self.send,
            "ResolvePermissionRequest": self.resolve,
            "CancelTurn": self.cancel,
        }


@pytest.mark.parametrize(
    ("typed", "decision", "message", "arguments"),
    [
        ("y\n", ALLOW, "", None),
        ("s\n", ALWAYS, "", None),
        ("n\nnot now\n", DENY, "not now", None),
        ('what\ne\nno json\ne\n{"path": "other.txt"}\n', ALLOW, "", {"path": "other.txt"}),
    ],
)
async def test_a_permission_is_asked_for_and_given_as_typed(
    tmp_path: Path, typed: str, decision: int, message: str, arguments: dict[str, str] | None
) -> None:
    asking = Asking()
    async with (
        serving(**asking.methods()) as target,
        at_terminal(Program(tmp_path, target), "chat", SESSION, "-m", "write") as terminal,
    ):
        await terminal.see("files.write asks for permission")
        await terminal.see("[e]dit? ")
        shown = [line.strip("│").rstrip() for line in terminal.screen.splitlines() if line.startswith("│")]
        # By name, whole numbers as such; no line of a value begins where another argument would.
        assert shown == [" content: one", "          path: other.txt", " lines:   2", " path:    notes.txt"]
        terminal.type(typed)
        assert await terminal.ended() == 0
        await terminal.see("written.")
    assert asking.answer is not None
    assert (asking.answer.name, asking.answer.decision, asking.answer.message) == (REQUEST, decision, message)
    edited = asking.answer.edited_arguments if asking.answer.HasField("edited_arguments") else None
    assert (edited and MessageToDict(edited)) == arguments


async def session(request: session_pb2.GetSessionRequest, context: Any) -> session_pb2.Session:
    return session_pb2.Session(name=request.name, agent="agents/clerk", display_name="letters")


class Waiting:
    """Requests that wait, until they are answered; one answer may come from elsewhere, or find nobody."""

    def __init__(self, *tools: str) -> None:
        self.pending = {
            f"{REQUEST[:-1]}{number}": session_pb2.PermissionRequest(
                name=f"{REQUEST[:-1]}{number}", call=event_pb2.ToolCall(call_id="1", tool=tool)
            )
            for number, tool in enumerate(tools)
        }
        self.failures: list[tuple[grpc.StatusCode, str]] = []
        self.after: list[str] = []
        """What is answered elsewhere while the first answer is given."""

    async def listed(
        self, request: session_pb2.ListPermissionRequestsRequest, context: Any
    ) -> session_pb2.ListPermissionRequestsResponse:
        return session_pb2.ListPermissionRequestsResponse(permission_requests=self.pending.values())

    async def resolve(
        self, request: session_pb2.ResolvePermissionRequestRequest, context: Any
    ) -> session_pb2.PermissionRequest:
        if self.failures:
            await context.abort(*self.failures.pop(0))
        answered = self.pending.pop(request.name)
        for name in self.after:
            self.pending.pop(name)
        self.after.clear()
        return session_pb2.PermissionRequest(
            name=request.name, call=answered.call, state=event_pb2.PERMISSION_STATE_ALLOWED
        )

    def methods(self) -> dict[str, Any]:
        return {
            "ListPermissionRequests": self.listed,
            "ResolvePermissionRequest": self.resolve,
            "GetSession": session,
        }


async def test_watching_permissions_tells_whose_call_it_is_and_what_an_answer_did(tmp_path: Path) -> None:
    waiting = Waiting("files.write", "files.delete")
    first = next(iter(waiting.pending))
    waiting.pending[first].expire_time.FromDatetime(datetime.now(UTC) + timedelta(hours=30))
    async with (
        serving(**waiting.methods()) as target,
        at_terminal(Program(tmp_path, target), "permissions", "watch") as terminal,
    ):
        await terminal.see("[e]dit? ")
        assert "(letters, clerk) · 1 d left · 1 more behind it" in terminal.screen
        terminal.type("y\n")
        await terminal.see("files.write is allowed")
        await terminal.see("files.delete asks for permission")
        await terminal.see("(letters, clerk) · no deadline ")
        terminal.type("y\n")
        await terminal.see("files.delete is allowed")
        assert await terminal.ended(pressing="\x03") == 130


async def test_watching_permissions_goes_on_when_somebody_else_answers(tmp_path: Path) -> None:
    waiting = Waiting("files.write", "files.delete", "math.add")
    waiting.after = [list(waiting.pending)[1]]
    async with (
        serving(**waiting.methods()) as target,
        at_terminal(Program(tmp_path, target), "permissions", "watch") as terminal,
    ):
        await terminal.see("[e]dit? ")
        terminal.type("y\n")
        await terminal.see("files.delete of ")
        await terminal.see("needs no answer any more")
        await terminal.see("math.add asks for permission")
        assert "files.delete asks" not in terminal.screen
        assert await terminal.ended(pressing="\x04") == 0


async def test_watching_permissions_asks_again_when_an_answer_found_no_server(tmp_path: Path) -> None:
    waiting = Waiting("files.write")
    waiting.failures = [(grpc.StatusCode.UNAVAILABLE, "gone")] * 3
    async with (
        serving(**waiting.methods()) as target,
        at_terminal(Program(tmp_path, target), "permissions", "watch") as terminal,
    ):
        await terminal.see("[e]dit? ")
        terminal.type("y\n")
        await terminal.see("connection lost")
        await terminal.see("connected again")
        await terminal.sees_again("[e]dit? ")
        terminal.type("y\n")
        await terminal.see("files.write is allowed")
        assert await terminal.ended(pressing="\x03") == 130


async def test_ctrl_c_cancels_the_turn_and_the_conversation_goes_on(tmp_path: Path) -> None:
    asking = Asking()
    async with (
        serving(**asking.methods()) as target,
        at_terminal(Program(tmp_path, target), "chat", SESSION) as terminal,
    ):
        await terminal.see("» ")
        terminal.type("run\n")
        await terminal.see("running...")
        terminal.type("\x03")
        async with asyncio.timeout(10):
            await asking.cancelled.wait()
        await terminal.see("cancelling")
        terminal.type("write\n")
        await terminal.see("[e]dit? ")
        terminal.type("y\n")
        await terminal.see("written.")
        assert await terminal.ended(pressing="\x04") == 0
        await terminal.see("Go on later")


async def test_a_second_ctrl_c_leaves_and_lets_the_turn_go_on(tmp_path: Path) -> None:
    asking = Asking()

    async def never(request: session_pb2.CancelTurnRequest, context: Any) -> session_pb2.Turn:
        await asyncio.Event().wait()
        raise AssertionError

    async with (
        serving(**asking.methods() | {"CancelTurn": never}) as target,
        at_terminal(Program(tmp_path, target), "chat", SESSION, "-m", "run") as terminal,
    ):
        await terminal.see("running...")
        terminal.type("\x03")
        await terminal.see("cancelling")
        terminal.type("\x03")
        assert await terminal.ended() == 130
        assert "Traceback" not in terminal.screen


async def test_ctrl_c_at_the_prompt_leaves(tmp_path: Path) -> None:
    async with (
        serving(**Asking().methods()) as target,
        at_terminal(Program(tmp_path, target), "chat", SESSION) as terminal,
    ):
        await terminal.see("» ")
        assert await terminal.ended(pressing="\x03") == 0
        assert "Traceback" not in terminal.screen
