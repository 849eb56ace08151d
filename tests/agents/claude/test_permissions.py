"""Calls that somebody is asked about: nothing waits in memory, and any server goes on with the answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from stationmaster_server.agents.model import Effect
from stationmaster_server.agents.runtime import (
    ModelCallStarted,
    PermissionNeeded,
    Ruling,
    ToolCall,
    ToolCallFinished,
    ToolCallStarted,
    ToolsCompleted,
)
from stationmaster_server.agents.runtimes.claude.command import CONTINUE
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime

from tests.agents.claude.conftest import MakeRuntime
from tests.agents.claude.conversation import READ, WRITE, asked, asking, command_lines, first_turn, taken_up
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import StandIn
from tests.agents.turns import allow, last_text, one, only, run

Answer = Callable[[ToolCall, Effect], Ruling]


def two_calls(provider: StandIn) -> None:
    """An answer with two calls, then one that ends the turn."""
    provider.reply(
        anthropic.answer(
            anthropic.text("I write."),
            anthropic.tool(WRITE, {"path": "a.txt", "content": "one"}, "toolu_1"),
            anthropic.tool(READ, {"path": "a.txt"}, "toolu_2"),
        ),
        anthropic.answer(anthropic.text("Done.")),
    )


async def test_nothing_runs_and_nothing_waits_while_a_person_thinks(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    two_calls(provider)
    asking_turn = first_turn("write it", tmp_path, rulings=asking)
    events = await run(runtime, asking_turn)
    assert [call.call_id for call in one(PermissionNeeded, events).calls] == ["toolu_1", "toolu_2"]
    assert events[-1] is one(PermissionNeeded, events)
    assert not only(ToolCallStarted, events)
    assert not (tmp_path / "a.txt").exists()
    assert runtime.live == 0
    assert command_lines(asking_turn.session_id) == []
    assert len(provider.requests) == 1


async def test_an_allowed_turn_goes_on_on_another_server(
    provider: StandIn, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    two_calls(provider)
    before = first_turn("write it", tmp_path, rulings=asking)
    events = await run(make_runtime(), before)
    after = await run(make_runtime(), taken_up(before, events, rulings=allow))
    assert (tmp_path / "a.txt").read_text() == "one"
    assert last_text(after) == "Done."
    assert one(ModelCallStarted, after).step == 2
    shown = asked(provider)
    assert shown[:4] == [
        ("user", "write it"),
        ("assistant", "I write."),
        ("assistant", f"{WRITE} toolu_1"),
        ("assistant", f"{READ} toolu_2"),
    ]
    assert shown[4][1].startswith("toolu_1: ")
    assert "one" in shown[5][1]
    assert shown[6:] == [("user", CONTINUE)]


@pytest.mark.parametrize("elsewhere", [True, False], ids=["taken up", "in one go"])
async def test_a_denial_and_edited_arguments_reach_the_model_and_the_tool(
    elsewhere: bool, provider: StandIn, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    two_calls(provider)

    def answer(call: ToolCall, default: Effect) -> Ruling:
        if call.tool == "files.read":
            return Ruling(Effect.DENY, message="Not this file.")
        return Ruling(Effect.ALLOW, {"path": "b.txt", "content": "edited"})

    before = first_turn("write it", tmp_path, rulings=asking if elsewhere else answer)
    events = await run(make_runtime(), before)
    if elsewhere:
        events = await run(make_runtime(), taken_up(before, events, rulings=answer))
    assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "b.txt").read_text() == "edited"
    assert one(ToolCallStarted, events).call.arguments == {"path": "b.txt", "content": "edited"}
    assert [finished.denied for finished in only(ToolCallFinished, events)] == [False, True]
    assert one(ToolsCompleted, events).results[1].content == "Not this file."
    assert ("user", "toolu_2: Not this file.") in asked(provider)
