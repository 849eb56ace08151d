"""Conversations with Anthropic."""

from __future__ import annotations

from pathlib import Path

import pytest
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    AnswerRestarted,
    HistoryMessage,
    RuntimeFailure,
    Text,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResult,
    ToolsCompleted,
)
from stationmaster_server.agents.runtimes.model import ModelRuntime

from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.conftest import ANTHROPIC_KEY
from tests.agents.providers.stand_in import End, StandIn
from tests.agents.turns import history_after, last_text, one, only, run, said, turn

MODEL = "anthropic:claude-sonnet-5"


async def test_text_is_streamed_piece_by_piece_and_priced(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(anthropic.answer(anthropic.text("Hel", "lo", " there")))
    events = await run(runtime, turn("hello", model=MODEL))
    answer = one(AnswerCompleted, events)
    assert said(events) == "Hello there"
    assert answer.parts == (Text("Hello there"),)
    assert answer.finish_reason == "stop"
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cached_input_tokens) == (150, 20, 40)
    # 100 at $2, 40 at $0.20, 10 at $2.50, 20 at $10 for a million.
    assert (answer.usage.cost_micros, answer.usage.cost_estimated) == (433, False)


async def test_a_whole_conversation_with_tool_calls(server: StandIn, runtime: ModelRuntime, tmp_path: Path) -> None:
    server.reply(
        anthropic.answer(
            anthropic.text("Let me see."),
            anthropic.tool("files_write", {"path": "a.txt", "content": "Grüße"}, "toolu_1"),
            anthropic.tool("files_read", {"path": "a.txt"}, "toolu_2"),
        ),
        anthropic.answer(anthropic.text("Done.")),
    )
    events = await run(runtime, turn("write it", model=MODEL, workspace=tmp_path))
    assert last_text(events) == "Done."
    assert one(ToolsCompleted, events).results == (
        ToolResult("toolu_1", "files.write", "Wrote 7 bytes to a.txt."),
        ToolResult("toolu_2", "files.read", "Grüße"),
    )
    *_, called, answered = server.requests[1].body["messages"]
    assert [block["type"] for block in called["content"]] == ["text", "tool_use", "tool_use"]
    assert [(block["tool_use_id"], block["content"][0]["text"]) for block in answered["content"]] == [
        ("toolu_1", "Wrote 7 bytes to a.txt."),
        ("toolu_2", "Grüße"),
    ]


async def test_the_history_of_a_turn_is_shown_again_in_the_next(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(
        anthropic.answer(
            anthropic.thinking("hm", "m", signature="signed"),
            anthropic.tool("math_evaluate", {"expression": "6*7"}, "toolu_1"),
        ),
        anthropic.answer(anthropic.text("42")),
        anthropic.answer(anthropic.text("You are welcome.")),
    )
    first = turn("what is 6*7", model=MODEL)
    events = await run(runtime, first)
    await run(runtime, turn(*history_after(first, events), "thanks", model=MODEL))
    messages = server.requests[2].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    thought, call = messages[1]["content"]
    assert (thought["thinking"], thought["signature"]) == ("hmm", "signed")
    assert (call["name"], call["input"]) == ("math_evaluate", {"expression": "6*7"})
    assert messages[2]["content"][0]["content"][0]["text"] == "42"


async def test_thinking_is_streamed_and_keeps_its_signature(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(anthropic.answer(anthropic.thinking("one ", "two", signature="signed"), anthropic.text("three")))
    events = await run(runtime, turn("think", model=MODEL))
    assert "".join(delta.text for delta in only(ThinkingDelta, events)) == "one two"
    thought, text = one(AnswerCompleted, events).parts
    assert isinstance(thought, Thinking)
    assert (thought.text, text) == ("one two", Text("three"))
    assert "signed" in thought.signature


async def test_thinking_that_another_provider_signed_is_not_sent_as_thinking(
    server: StandIn, runtime: ModelRuntime
) -> None:
    foreign = Thinking("hm", '{"provider":"openai","signature":"theirs"}')
    server.reply(anthropic.answer(anthropic.text("ok")))
    history = HistoryMessage("assistant", (foreign, Text("hello")))
    await run(runtime, turn("hi", history, "again", model=MODEL))
    assert "theirs" not in str(server.requests[0].body)


async def test_a_call_without_a_result_gets_one_before_it_is_sent(server: StandIn, runtime: ModelRuntime) -> None:
    cut_off = HistoryMessage("assistant", (ToolCall("toolu_9", "time.now", {}),))
    server.reply(anthropic.answer(anthropic.text("ok")))
    await run(runtime, turn("hi", cut_off, "go on", model=MODEL))
    contents = [message["content"] for message in server.requests[0].body["messages"]]
    assert any(block.get("tool_use_id") == "toolu_9" for content in contents for block in content)


async def test_an_answer_that_breaks_off_is_asked_for_again(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(anthropic.cut(anthropic.text("Hel", "lo")), anthropic.answer(anthropic.text("Good", " day")))
    events = await run(runtime, turn("hello", model=MODEL))
    restarted = events.index(one(AnswerRestarted, events))
    assert (said(events[:restarted]), said(events[restarted:])) == ("Hello", "Good day")
    answer = one(AnswerCompleted, events)
    assert answer.parts == (Text("Good day"),)
    # What the first attempt used is paid for as well.
    assert answer.usage.model_calls == 2
    assert answer.usage.input_tokens == 300


async def test_an_answer_that_ends_early_but_properly_is_not_taken_for_whole(
    server: StandIn, runtime: ModelRuntime
) -> None:
    server.reply(anthropic.cut(anthropic.text("Hel"), end=End.EARLY), anthropic.answer(anthropic.text("Hello")))
    events = await run(runtime, turn("hello", model=MODEL))
    one(AnswerRestarted, events)
    assert last_text(events) == "Hello"


async def test_an_overload_within_an_answer_is_retried(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(anthropic.overloaded_within(anthropic.text("Hel", "lo")), anthropic.answer(anthropic.text("Hi")))
    events = await run(runtime, turn("hello", model=MODEL))
    one(AnswerRestarted, events)
    assert last_text(events) == "Hi"


@pytest.mark.parametrize(("status", "kind"), [(500, "api_error"), (529, "overloaded_error"), (503, "api_error")])
async def test_a_failing_provider_is_asked_again(
    server: StandIn, runtime: ModelRuntime, status: int, kind: str
) -> None:
    server.reply(anthropic.failure(status, kind, "sorry"), anthropic.answer(anthropic.text("Hi")))
    events = await run(runtime, turn("hello", model=MODEL))
    # Nothing had been streamed, so nothing is taken back.
    assert not only(AnswerRestarted, events)
    assert last_text(events) == "Hi"


async def test_a_provider_that_keeps_failing_ends_the_turn(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(*[anthropic.failure(500, "api_error", "out of order")] * 5)
    with pytest.raises(RuntimeFailure, match="out of order") as failed:
        await run(runtime, turn("hello", model=MODEL))
    assert (failed.value.reason, failed.value.retryable) == ("MODEL_UNAVAILABLE", True)
    assert len(server.requests) == 3


async def test_a_refused_key_ends_the_turn_at_once_and_is_not_told(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(anthropic.failure(401, "authentication_error", f"invalid key {ANTHROPIC_KEY}"))
    with pytest.raises(RuntimeFailure) as failed:
        await run(runtime, turn("hello", model=MODEL))
    assert (failed.value.reason, failed.value.retryable) == ("MODEL_UNAVAILABLE", False)
    assert ANTHROPIC_KEY not in str(failed.value)
    assert len(server.requests) == 1


async def test_a_refused_request_says_why_without_secrets(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(anthropic.failure(400, "invalid_request_error", f"temperature: too high ({ANTHROPIC_KEY})"))
    with pytest.raises(RuntimeFailure, match="temperature: too high") as failed:
        await run(runtime, turn("hello", model=MODEL))
    assert failed.value.reason == "INVALID_FIELD"
    assert ANTHROPIC_KEY not in failed.value.message


async def test_a_conversation_that_is_too_long_reaches_a_limit(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(anthropic.failure(400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"))
    with pytest.raises(RuntimeFailure) as failed:
        await run(runtime, turn("hello", model=MODEL))
    assert failed.value.reason == "LIMIT_REACHED"


async def test_instructions_tools_and_cache_marks_are_sent(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(anthropic.answer(anthropic.text("ok")))
    summary = HistoryMessage("system", (Text("Earlier: they greeted."),))
    asked = turn(summary, "hello", model=MODEL)
    await run(runtime, asked)
    body = server.requests[0].body
    assert "Earlier: they greeted." in str(body["system"])
    assert "cache_control" in str(body)
    assert [tool["name"] for tool in body["tools"]] == [
        "files_list",
        "files_read",
        "files_search",
        "files_write",
        "math_evaluate",
        "time_now",
    ]
    assert body["max_tokens"] == 8192
