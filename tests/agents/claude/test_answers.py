"""What the model says, and the tools that it calls."""

from __future__ import annotations

from pathlib import Path

from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    ModelCallStarted,
    Text,
    Thinking,
    ToolCallFinished,
    ToolsCompleted,
)
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime

from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import StandIn
from tests.agents.turns import last_text, one, only, run, said, turn

MODEL = "anthropic:claude-sonnet-5"


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
