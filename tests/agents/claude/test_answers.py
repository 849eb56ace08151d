"""What the model says, and the tools that it calls."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from stationmaster_server.agents.model import AgentSpec
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    ModelCallStarted,
    Text,
    Thinking,
    ToolCallFinished,
    ToolsCompleted,
)
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime

from tests.agents.claude.conversation import MODEL, asked
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import StandIn
from tests.agents.turns import last_text, one, only, run, said, turn


async def test_text_is_streamed_piece_by_piece_and_priced(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(anthropic.answer(anthropic.text("Hel", "lo", " there")))
    events = await run(runtime, turn("hello", model=MODEL, workspace=tmp_path))
    answer = one(AnswerCompleted, events)
    assert said(events) == "Hello there"
    assert answer.parts == (Text("Hello there"),)
    assert answer.finish_reason == "stop"
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cached_input_tokens) == (150, 20, 40)
    assert (answer.usage.cost_micros, answer.usage.cost_estimated) == (433, False)


async def test_tools_run_on_our_side_and_their_results_reach_the_model(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(
        anthropic.answer(
            anthropic.thinking("Hmm.", signature="sig"),
            anthropic.text("Let me see."),
            anthropic.tool("mcp__stationmaster__files_write", {"path": "a.txt", "content": "Grüße"}, "toolu_1"),
            anthropic.tool("mcp__stationmaster__files_read", {"path": "a.txt"}, "toolu_2"),
            anthropic.tool("mcp__stationmaster__nothing", {}, "toolu_3"),
        ),
        anthropic.answer(anthropic.text("Done.")),
    )
    events = await run(runtime, turn("write it", model=MODEL, workspace=tmp_path))
    assert last_text(events) == "Done."
    assert (tmp_path / "a.txt").read_text() == "Grüße"
    first, _ = only(AnswerCompleted, events)
    assert isinstance(first.parts[0], Thinking)
    assert [call.tool for call in first.calls] == ["files.write", "files.read", "nothing"]
    results = one(ToolsCompleted, events).results
    assert [result.is_error for result in results] == [False, False, True]
    assert len(only(ToolCallFinished, events)) == 3
    assert [event.step for event in only(ModelCallStarted, events)] == [1, 2]
    sent = provider.requests[-1].body["messages"]
    blocks = next(message["content"] for message in sent if "toolu_1" in str(message) and message["role"] == "user")
    assert [block["tool_use_id"] for block in blocks] == ["toolu_1", "toolu_2", "toolu_3"]
    assert "Grüße" in str(blocks[1])


@pytest.mark.parametrize("name", ["claude-sonnet-5", "claude-haiku-4-5", "claude-opus-4-1"])
async def test_nothing_is_asked_but_what_was_announced_and_of_the_model_that_was_named(
    name: str, provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the small model too, which the program likes for its own ends, and of one that it would replace."""
    provider.reply(
        anthropic.answer(anthropic.tool("mcp__stationmaster__files_read", {"path": "a"}, "toolu_1")),
        anthropic.answer(anthropic.text("Done.")),
    )
    with caplog.at_level(logging.DEBUG, "stationmaster_server.agents.runtimes.claude.relay"):
        events = await run(runtime, turn("read it", model=f"anthropic:{name}", workspace=tmp_path))
    calls = only(ModelCallStarted, events)
    assert [request.body["model"] for request in provider.requests] == [name] * len(calls) == [name] * 2
    for call, request in zip(calls, provider.requests, strict=True):
        assert call.max_output_tokens == request.body["max_tokens"]
        told = json.dumps(request.body, ensure_ascii=False, separators=(",", ":")).encode()
        assert call.estimated_input_tokens < len(told) < call.max_input_tokens
    assert "refused" not in caplog.text


async def test_a_long_result_and_long_instructions_reach_the_model_whole(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    long = "".join(f"line {number}\n" for number in range(18_000))
    (tmp_path / "long.txt").write_text(long)
    provider.reply(
        anthropic.answer(anthropic.tool("mcp__stationmaster__files_read", {"path": "long.txt"}, "toolu_1")),
        anthropic.answer(anthropic.text("Done.")),
    )
    spec = AgentSpec(MODEL, tools=("*",), instructions="Be brief. " * 20_000)
    events = await run(runtime, turn("read it", spec=spec, workspace=tmp_path))
    assert last_text(events) == "Done."
    (result,) = one(ToolsCompleted, events).results
    assert len(result.content) > 150_000
    assert any(text == f"toolu_1: {result.content}" for _, text in asked(provider))
    assert "Be brief. " * 19_999 in str(provider.requests[0].body["system"])
    assert {request.path for request in provider.requests} == {"/v1/messages?beta=true"}
