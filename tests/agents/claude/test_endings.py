"""How turns end that do not end well: the reason that people are told, and no process left behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from stationmaster_server.agents.model import AgentSpec
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    AnswerRestarted,
    ModelCallStarted,
    RuntimeFailure,
    TextDelta,
    TurnEvent,
    Usage,
)
from stationmaster_server.agents.runtimes.claude import command
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime

from tests.agents.claude.conftest import KEY, MakeRuntime
from tests.agents.claude.conversation import MODEL, WRITE, asked, command_lines, first_turn, next_turn
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import End, Reply, StandIn
from tests.agents.providers.waiting import LIMIT
from tests.agents.turns import FAST, last_text, one, only, run, said
from tests.waiting import until

REFUSED = anthropic.failure(401, "authentication_error", f"invalid x-api-key {KEY}")
LIMITED = anthropic.failure(429, "rate_limit_error", "Slow down.", retry_after="0")
LIMITED_FOR_LONG = anthropic.failure(429, "rate_limit_error", "Slow down.", retry_after="3600")
BROKEN = anthropic.failure(500, "api_error", "Internal server error", x_should_retry="true")
UNKNOWN = anthropic.failure(404, "not_found_error", "model: claude-sonnet-5")
TOO_LONG = anthropic.failure(400, "invalid_request_error", "prompt is too long: 300000 tokens > 200000 maximum")


@pytest.mark.parametrize(
    ("reply", "reason", "retryable"),
    [
        (REFUSED, "MODEL_UNAVAILABLE", False),
        (LIMITED, "RATE_LIMITED", True),
        (LIMITED_FOR_LONG, "RATE_LIMITED", True),
        (BROKEN, "MODEL_UNAVAILABLE", True),
        (UNKNOWN, "MODEL_UNAVAILABLE", False),
        (TOO_LONG, "LIMIT_REACHED", False),
    ],
    ids=["401", "429", "429 for long", "500", "404", "too long"],
)
async def test_a_provider_that_refuses_is_told_apart(
    reply: Reply, reason: str, retryable: bool, provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(*[reply] * 12)
    events: list[TurnEvent] = []
    with pytest.raises(RuntimeFailure) as raised:
        await run(runtime, first_turn("hello", tmp_path), events)
    failure = raised.value
    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert KEY not in failure.message
    assert failure.usage == Usage()  # it charges nothing
    assert only(AnswerCompleted, events) == []
    assert len(provider.requests) <= FAST.attempts
    assert runtime.live == 0
    assert command_lines() == []


async def test_an_answer_that_broke_off_is_asked_for_again_and_readers_are_told(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(
        anthropic.overloaded_within(anthropic.text("Half", " an"), anthropic.text("x")),
        anthropic.answer(anthropic.text("Whole.")),
    )
    events = await run(runtime, first_turn("hello", tmp_path))
    assert said(events) == "Half anxWhole."
    restart = one(AnswerRestarted, events)
    assert events.index(restart) == 1 + len([event for event in only(TextDelta, events) if event.text != "Whole."])
    assert isinstance(events[0], ModelCallStarted)
    assert isinstance(events[events.index(restart) + 1], ModelCallStarted), "every attempt is paid for"
    assert last_text(events) == "Whole."
    usage = one(AnswerCompleted, events).usage
    assert usage.model_calls == 2  # the half was paid for as well
    assert usage.cost_estimated
    assert restart.usage.model_calls == 1
    assert 0 < restart.usage.cost_micros < usage.cost_micros


async def test_a_cut_in_every_attempt_ends_the_turn(provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path) -> None:
    provider.reply(*[anthropic.overloaded_within(anthropic.text("Half"), anthropic.text("x"))] * 12)
    with pytest.raises(RuntimeFailure) as raised:
        await run(runtime, first_turn("hello", tmp_path))
    assert (raised.value.reason, raised.value.retryable) == ("MODEL_UNAVAILABLE", True)
    assert len(provider.requests) == FAST.attempts
    assert raised.value.usage is not None
    assert raised.value.usage.model_calls == FAST.attempts
    assert command_lines() == []


async def test_closing_the_iterator_stops_the_model_call_at_once(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(anthropic.cut(anthropic.text("Hel", "lo"), anthropic.text("x"), end=End.HANG))
    stopped = first_turn("hello", tmp_path)
    async with aclosing(runtime.run(stopped)) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert command_lines() == []
    assert runtime.live == 0
    async with asyncio.timeout(LIMIT):
        await provider.client_gone.wait()
    provider.reply(anthropic.answer(anthropic.text("Hi.")))
    events = await run(runtime, next_turn(stopped, [], "again"))
    assert last_text(events) == "Hi."
    # The words between are the command line's own, where a message of the user had no answer.
    assert asked(provider) == [("user", "hello"), ("assistant", "No response requested."), ("user", "again")]


async def test_a_flood_that_nobody_reads_any_more_holds_up_no_end(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(anthropic.cut(anthropic.text(*["word "] * 5_000), anthropic.text("x"), end=End.HANG))

    async def full() -> bool:
        return runtime._made is not None and all(live.line.news.full() for live in runtime._made._busy)

    async with asyncio.timeout(60), aclosing(runtime.run(first_turn("hello", tmp_path))) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        await until(full)
    assert command_lines() == []
    assert runtime.live == 0


async def test_cancelling_the_task_ends_the_process_as_well(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(anthropic.cut(anthropic.text("Hel"), anthropic.text("x"), end=End.HANG))
    task = asyncio.create_task(run(runtime, first_turn("hello", tmp_path)))
    async with asyncio.timeout(LIMIT):
        await provider.hanging.wait()
    task.cancel()
    await asyncio.wait([task], timeout=LIMIT)
    assert task.cancelled()
    assert command_lines() == []
    assert runtime.live == 0


async def test_a_process_that_dies_fails_its_turn_and_not_the_next(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(anthropic.answer(anthropic.text("Hi.")))
    first = first_turn("hello", tmp_path)
    events = await run(runtime, first)
    provider.reply(anthropic.cut(anthropic.text("Hel"), anthropic.text("x"), end=End.HANG))
    second = next_turn(first, events, "and now?")
    task = asyncio.create_task(run(runtime, second))
    async with asyncio.timeout(LIMIT):
        await provider.hanging.wait()
    for process in command_lines(first.session_id):
        process.kill()
    with pytest.raises(RuntimeFailure) as raised:
        await task
    assert raised.value.reason == "INTERNAL"
    assert runtime.live == 0
    provider.reply(anthropic.answer(anthropic.text("Here again.")))
    assert last_text(await run(runtime, second)) == "Here again."
    assert asked(provider) == [("user", "hello"), ("assistant", "Hi."), ("user", "and now?")]


async def test_an_answer_that_was_cut_by_its_limit_is_not_gone_on_with(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(anthropic.answer(anthropic.text("Half a"), stop="max_tokens"))
    spec = AgentSpec(MODEL, tools=("*",), max_output_tokens=77)
    events = await run(runtime, first_turn("hello", tmp_path, spec=spec))
    assert one(AnswerCompleted, events).finish_reason == "length"
    assert one(ModelCallStarted, events).max_output_tokens == 77
    assert [request.body["max_tokens"] for request in provider.requests] == [77]


async def test_no_call_may_say_more_than_the_budget_leaves(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(
        anthropic.answer(anthropic.tool(WRITE, {"path": "a.txt", "content": "one"}, "toolu_1")),
        anthropic.answer(anthropic.text("Done.")),
    )
    left = iter((900, 400, 400))
    turn = replace(first_turn("hello", tmp_path), output_budget=lambda _: next(left))
    events = await run(runtime, turn)
    assert last_text(events) == "Done."
    assert [event.max_output_tokens for event in only(ModelCallStarted, events)] == [900, 400]
    assert [request.body["max_tokens"] for request in provider.requests] == [900, 400]


async def test_a_process_that_does_not_start_fails_its_turn_and_takes_no_place(
    provider: StandIn, make_runtime: MakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime(max_live=1)
    with monkeypatch.context() as broken:
        broken.setattr(command, "program", lambda: Path("/bin/false"))
        with pytest.raises(RuntimeFailure) as raised:
            await run(runtime, first_turn("hello", tmp_path))
    assert raised.value.reason == "INTERNAL"
    assert runtime.live == 0
    provider.reply(anthropic.answer(anthropic.text("Hi.")))
    assert last_text(await run(runtime, first_turn("hello", tmp_path))) == "Hi."
