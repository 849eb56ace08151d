"""Conversations with OpenAI, and with servers that speak as it does."""

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
    ToolCallFinished,
    ToolResult,
    ToolsCompleted,
)
from stationmaster_server.agents.runtimes.model import ModelRuntime

from tests.agents.providers import openai_stream as openai
from tests.agents.providers.conftest import OPENAI_KEY
from tests.agents.providers.stand_in import End, StandIn
from tests.agents.turns import history_after, last_text, one, only, run, said, turn

MODEL = "openai:gpt-4o"
LOCAL = "local:llama-3"


async def test_text_is_streamed_piece_by_piece_and_priced(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(openai.answer(openai.text("Hel", "lo", " there")))
    events = await run(runtime, turn("hello", model=MODEL))
    answer = one(AnswerCompleted, events)
    assert said(events) == "Hello there"
    assert answer.parts == (Text("Hello there"),)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cached_input_tokens) == (100, 20, 60)
    # 40 at $2.50, 60 at $1.25, 20 at $10 for a million.
    assert (answer.usage.cost_micros, answer.usage.cost_estimated) == (375, False)
    assert server.requests[0].headers["authorization"] == f"Bearer {OPENAI_KEY}"


@pytest.mark.parametrize("model", [MODEL, LOCAL])
async def test_a_whole_conversation_with_tool_calls(
    server: StandIn, runtime: ModelRuntime, tmp_path: Path, model: str
) -> None:
    write = openai.tool("files_write", {"path": "a.txt", "content": "Grüße"}, "call_1")
    read = openai.tool("files_read", {"path": "a.txt"}, "call_2", index=1)
    server.reply(openai.answer(openai.text("Let me see."), write, read), openai.answer(openai.text("Done.")))
    asked = turn("write it", model=model, workspace=tmp_path)
    events = await run(runtime, asked)
    assert last_text(events) == "Done."
    assert one(ToolsCompleted, events).results == (
        ToolResult("call_1", "files.write", "Wrote 7 bytes to a.txt."),
        ToolResult("call_2", "files.read", "Grüße"),
    )
    server.reply(openai.answer(openai.text("Bye.")))
    await run(runtime, turn(*history_after(asked, events), "thanks", model=model))
    messages = server.requests[2].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert [call["function"]["name"] for call in messages[1]["tool_calls"]] == ["files_write", "files_read"]
    assert [message["content"] for message in messages[2:4]] == ["Wrote 7 bytes to a.txt.", "Grüße"]


async def test_reasoning_is_streamed_as_thinking(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(openai.answer(openai.reasoning("one ", "two"), openai.text("three")))
    events = await run(runtime, turn("think", model=LOCAL))
    assert "".join(delta.text for delta in only(ThinkingDelta, events)) == "one two"
    thought, text = one(AnswerCompleted, events).parts
    assert isinstance(thought, Thinking)
    assert (thought.text, text) == ("one two", Text("three"))


async def test_arguments_that_are_no_json_are_told_to_the_model(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(
        openai.answer(openai.tool("math_evaluate", '{"expression": "1+', "call_1")),
        openai.answer(openai.text("Sorry.")),
    )
    events = await run(runtime, turn("1+1", model=MODEL))
    result = one(ToolCallFinished, events).result
    assert result.is_error
    assert "not a JSON object" in result.content
    assert last_text(events) == "Sorry."


async def test_calls_that_are_called_alike_in_every_answer_are_told_apart(
    server: StandIn, runtime: ModelRuntime
) -> None:
    time = openai.tool("time_now", {}, "call_0")
    server.reply(openai.answer(time), openai.answer(time), openai.answer(openai.text("Late.")))
    events = await run(runtime, turn("time", model=LOCAL))
    assert [event.result.call_id for event in only(ToolCallFinished, events)] == ["call_0", "call_0-2"]


async def test_usage_that_is_not_told_is_estimated_and_the_cost_says_so(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(openai.answer(openai.text("x" * 300), usage=None))
    usage = one(AnswerCompleted, await run(runtime, turn("hello", model=LOCAL))).usage
    assert usage.output_tokens == 100
    assert usage.input_tokens > 0
    assert usage.cost_micros > 0
    assert usage.cost_estimated


async def test_an_unknown_price_is_never_zero_without_saying_so(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(openai.answer(openai.text("hi")))
    usage = one(AnswerCompleted, await run(runtime, turn("hello", model=LOCAL))).usage
    assert (usage.cost_micros, usage.cost_estimated) == (1000, True)


@pytest.mark.parametrize("end", [End.BREAK, End.EARLY])
async def test_an_answer_that_breaks_off_is_asked_for_again(server: StandIn, runtime: ModelRuntime, end: End) -> None:
    server.reply(openai.cut(openai.text("Hel", "lo"), end=end), openai.answer(openai.text("Good", " day")))
    events = await run(runtime, turn("hello", model=MODEL))
    restarted = events.index(one(AnswerRestarted, events))
    assert (said(events[:restarted]), said(events[restarted:])) == ("Hello", "Good day")
    assert last_text(events) == "Good day"


async def test_a_rate_limit_is_waited_for(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(openai.failure(429, "slow down", retry_after="1"), openai.answer(openai.text("Hi")))
    events = await run(runtime, turn("hello", model=MODEL))
    assert last_text(events) == "Hi"
    assert one(AnswerCompleted, events).latency.total_seconds() >= 1


async def test_a_rate_limit_that_is_too_long_is_not_waited_for(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(openai.failure(429, "slow down", retry_after="3600"))
    with pytest.raises(RuntimeFailure) as failed:
        await run(runtime, turn("hello", model=MODEL))
    assert (failed.value.reason, failed.value.retryable) == ("RATE_LIMITED", True)


async def test_an_account_that_is_used_up_is_not_asked_again(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(openai.failure(429, "You exceeded your current quota", code="insufficient_quota"))
    with pytest.raises(RuntimeFailure) as failed:
        await run(runtime, turn("hello", model=MODEL))
    assert (failed.value.reason, failed.value.retryable) == ("MODEL_UNAVAILABLE", False)
    assert len(server.requests) == 1


async def test_a_refused_key_is_not_told(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(openai.failure(401, f"Incorrect API key provided: {OPENAI_KEY}", code="invalid_api_key"))
    with pytest.raises(RuntimeFailure) as failed:
        await run(runtime, turn("hello", model=MODEL))
    assert failed.value.reason == "MODEL_UNAVAILABLE"
    assert OPENAI_KEY not in str(failed.value)


async def test_a_server_that_is_not_there_is_asked_again_and_then_given_up(runtime: ModelRuntime) -> None:
    from stationmaster_server.agents.providers import Protocol, ProviderSettings

    from tests.agents.turns import model_runtime

    nobody = model_runtime(ProviderSettings("local", Protocol.OPENAI_COMPATIBLE, base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(RuntimeFailure, match="connection failed") as failed:
        await run(nobody, turn("hello", model=LOCAL))
    assert failed.value.retryable
    await nobody.close()


async def test_a_conversation_may_go_on_with_another_provider(server: StandIn, runtime: ModelRuntime) -> None:
    thought = Thinking("hm", '{"provider":"anthropic","signature":"theirs"}')
    called = HistoryMessage("assistant", (thought, ToolCall("toolu_1", "time.now", {})))
    answered = HistoryMessage("tool", (ToolResult("toolu_1", "time.now", "noon"),))
    server.reply(openai.answer(openai.text("ok")))
    await run(runtime, turn("time?", called, answered, "and now?", model=MODEL))
    body = server.requests[0].body
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "user"]
    assert "theirs" not in str(body)
