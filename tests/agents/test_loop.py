"""The turn loop: what it yields, in which order, and how it goes on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from stationmaster_server.agents.model import AgentSpec, Effect
from stationmaster_server.agents.prices import Price, Prices
from stationmaster_server.agents.providers import Providers
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    AnswerRestarted,
    HistoryMessage,
    ModelCallStarted,
    PermissionNeeded,
    Ruling,
    RuntimeFailure,
    Text,
    TextDelta,
    ToolCall,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
    ToolResult,
    ToolsCompleted,
    TurnEvent,
)
from stationmaster_server.agents.runtimes.bounds import LEAST_OUTPUT_TOKENS
from stationmaster_server.agents.runtimes.calls import MAX_RESULT_BYTES, MAX_RESULTS_BYTES
from stationmaster_server.agents.runtimes.model import ModelRuntime
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.agents.tools.source import ToolSource
from stationmaster_server.agents.tools.tool import Arguments, ToolContext, ToolError, TypedTool

from tests.agents.turns import (
    allow,
    asked,
    by_default,
    history_after,
    last_text,
    model_runtime,
    one,
    only,
    run,
    said,
    turn,
)

LIMIT = 10
DEAR = Prices({"demo": Price(1_000_000, 3_000_000, cache_write_micros=1_250_000)})


class Nothing(Arguments):
    times: int = Field(1, ge=1)


def tool(function: Any, name: str = "test.tool", effect: Effect = Effect.ALLOW) -> TypedTool[Nothing]:
    return TypedTool(name, "For tests.", Nothing, function, effect=effect)


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def test_an_answer_without_calls_is_one_model_call() -> None:
    events = await run(model_runtime(), turn("/say 3"))
    assert [type(event) for event in events] == [ModelCallStarted, TextDelta, TextDelta, TextDelta, AnswerCompleted]
    assert said(events) == "word1 word2 word3" == last_text(events)


async def test_a_call_is_run_between_two_model_calls(tmp_path: Path) -> None:
    events = await run(model_runtime(), turn('/tool math.evaluate {"expression": "6*7"}\n/say 1', workspace=tmp_path))
    assert [type(event) for event in events] == [
        ModelCallStarted,
        AnswerCompleted,
        ToolCallStarted,
        ToolCallFinished,
        ToolsCompleted,
        ModelCallStarted,
        TextDelta,
        AnswerCompleted,
    ]
    assert [event.step for event in only(ModelCallStarted, events)] == [1, 2]
    assert one(ToolCallFinished, events).result.content == "42"


async def test_calls_of_one_answer_run_in_their_order(tmp_path: Path) -> None:
    message = '/tools\n/tool files.write {"path": "a", "content": "x"}\n/tool files.read {"path": "a"}'
    events = await run(model_runtime(), turn(message, workspace=tmp_path))
    assert [result.content for result in one(ToolsCompleted, events).results] == ["Wrote 1 bytes to a.", "x"]


async def test_nothing_of_an_answer_runs_before_what_asks_is_allowed(tmp_path: Path) -> None:
    message = '/tools\n/tool files.list {}\n/tool files.write {"path": "a", "content": "x"}'
    events = await run(model_runtime(), turn(message, workspace=tmp_path, rulings=by_default))
    assert isinstance(events[-1], PermissionNeeded)
    assert [call.tool for call in asked(events)] == ["files.write"]
    assert not only(ToolCallStarted, events)
    assert names_in(tmp_path) == []


async def test_an_allowed_call_runs_when_the_turn_goes_on(tmp_path: Path) -> None:
    asking = turn('/tool files.write {"path": "a", "content": "x"}', workspace=tmp_path, rulings=by_default)
    events = await run(model_runtime(), asking)
    history = history_after(asking, events)
    again = await run(model_runtime(), replace(asking, history=history, rulings=allow, step=2))
    assert isinstance(again[0], ToolCallStarted)
    assert (tmp_path / "a").read_text() == "x"
    assert last_text(again) == "files.write says: Wrote 1 bytes to a."


async def test_edited_arguments_are_those_it_runs_with(tmp_path: Path) -> None:
    def edit(call: ToolCall, default: Effect) -> Ruling:
        return Ruling(Effect.ALLOW, {"path": "b", "content": "edited"})

    events = await run(
        model_runtime(), turn('/tool files.write {"path": "a", "content": "x"}', workspace=tmp_path, rulings=edit)
    )
    assert one(ToolCallStarted, events).call.arguments == {"path": "b", "content": "edited"}
    assert names_in(tmp_path) == ["b"]


async def test_edited_arguments_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    def edit(call: ToolCall, default: Effect) -> Ruling:
        return Ruling(Effect.ALLOW, {"nonsense": 1})

    events = await run(model_runtime(), turn('/tool files.read {"path": "a"}', workspace=tmp_path, rulings=edit))
    assert one(ToolCallFinished, events).result.is_error


async def test_a_denied_call_is_told_to_the_model_and_does_not_run(tmp_path: Path) -> None:
    def deny(call: ToolCall, default: Effect) -> Ruling:
        return Ruling(Effect.DENY, message="not on a Sunday")

    message = '/tool files.write {"path": "a", "content": "x"}'
    events = await run(model_runtime(), turn(message, workspace=tmp_path, rulings=deny))
    finished = one(ToolCallFinished, events)
    assert (finished.result.content, finished.result.is_error) == ("not on a Sunday", True)
    assert not only(ToolCallStarted, events)
    assert last_text(events) == "files.write failed: not on a Sunday"
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("no_such {}", "no tool 'no_such'"),
        ("files.read {bad", "not a JSON object"),
        ("files.read [1]", "not a JSON object"),
        ("files.read {}", "path: Field required"),
        ('files.read {"path": 1}', "path: Input should be a valid string"),
        ('files.read {"path": "a", "more": 1}', "more: Extra inputs"),
    ],
)
async def test_a_call_that_cannot_run_is_an_error_for_the_model_and_asks_nobody(call: str, why: str) -> None:
    def never(call: ToolCall, default: Effect) -> Ruling:
        return Ruling(Effect.ASK)

    events = await run(model_runtime(), turn(f"/tool {call}", rulings=never))
    result = one(ToolCallFinished, events).result
    assert result.is_error
    assert why in result.content
    assert isinstance(events[-1], AnswerCompleted)


async def test_tools_that_are_not_offered_cannot_be_called() -> None:
    events = await run(model_runtime(), turn("what is 6*7", spec=AgentSpec("demo", tools=("files.*",))))
    assert one(ToolCallFinished, events).result.is_error


async def test_a_turn_goes_on_after_every_event_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    message = """
    /say 2
    /tools
    /tool files.write {"path": "a", "content": "x"}
    /tool files.read {"path": "a"}
    /say 2
    """
    whole = turn(message, workspace=tmp_path)
    straight = await run(model_runtime(), whole)
    for cut in range(len(straight)):
        before = straight[:cut]
        results = {event.result.call_id: event.result for event in only(ToolCallFinished, before)}
        resumed = replace(
            whole,
            history=history_after(whole, before),
            results=results if not only(ToolsCompleted, before) else {},
            step=len(only(AnswerCompleted, before)) + 1,
        )
        after = await run(model_runtime(), resumed)
        assert last_text(after) == last_text(straight) if only(AnswerCompleted, after) else cut == len(straight)
        assert [event.result for event in only(ToolCallFinished, [*before, *after])] == [
            event.result for event in only(ToolCallFinished, straight)
        ]


async def test_a_turn_whose_answer_is_whole_yields_nothing_more() -> None:
    answered = HistoryMessage("assistant", (Text("done"),))
    assert await run(model_runtime(), turn("/say 1", answered)) == []


async def test_results_that_are_durable_are_not_made_again(tmp_path: Path) -> None:
    called = HistoryMessage("assistant", (ToolCall("1", "no.such", {}), ToolCall("2", "time.now", {})))
    done = {"1": ToolResult("1", "no.such", "from before"), "2": ToolResult("2", "time.now", "noon")}
    events = await run(model_runtime(), turn("/say 1", called, results=done))
    assert isinstance(events[0], ToolsCompleted)
    assert [result.content for result in events[0].results] == ["from before", "noon"]


async def test_a_tool_that_fails_is_an_error_for_the_model(caplog: pytest.LogCaptureFixture) -> None:
    async def explode(context: ToolContext, arguments: Nothing) -> str:
        raise RuntimeError("a secret")

    async def refuse(context: ToolContext, arguments: Nothing) -> str:
        raise ToolError("it is too dark")

    runtime = model_runtime(tools=[tool(explode, "test.explode"), tool(refuse, "test.refuse")])
    events = await run(runtime, turn("/tool test.explode {}\n/tool test.refuse {}"))
    contents = [event.result.content for event in only(ToolCallFinished, events)]
    assert contents == ["test.explode failed with an internal error.", "it is too dark"]
    assert "test.explode failed" in caplog.text


async def test_a_tool_that_takes_too_long_is_stopped() -> None:
    stopped = asyncio.Event()

    async def hang(context: ToolContext, arguments: Nothing) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    runtime = model_runtime(tools=[tool(hang)], tool_deadline=timedelta(milliseconds=20))
    events = await run(runtime, turn("/tool test.tool {}"))
    assert "did not finish within 0.02 seconds" in one(ToolCallFinished, events).result.content
    assert stopped.is_set()


@pytest.mark.parametrize("by", ["close", "cancel"])
async def test_a_turn_that_is_stopped_stops_its_tool_at_once(by: str) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def hang(context: ToolContext, arguments: Nothing) -> str:
        started.set()
        context.report("begun", 0.5)
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    runtime = model_runtime(tools=[tool(hang)])
    if by == "cancel":
        task = asyncio.create_task(run(runtime, turn("/tool test.tool {}")))
        async with asyncio.timeout(LIMIT):
            await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with aclosing(runtime.run(turn("/tool test.tool {}"))) as events:
            async for event in events:
                if isinstance(event, ToolCallProgress):
                    break
    assert stopped.is_set()


async def test_progress_is_told_in_order() -> None:
    async def work(context: ToolContext, arguments: Nothing) -> str:
        for number in (1, 2, 3):
            context.report(f"step {number}", number / 3)
            await asyncio.sleep(0)
        return "ok"

    events = await run(model_runtime(tools=[tool(work)]), turn("/tool test.tool {}"))
    told = [event.message for event in only(ToolCallProgress, events)]
    assert told == sorted(told)
    assert told[-1] == "step 3"
    assert events.index(only(ToolCallProgress, events)[-1]) < events.index(one(ToolCallFinished, events))


async def test_a_flood_of_reports_is_no_flood_of_events() -> None:
    async def work(context: ToolContext, arguments: Nothing) -> str:
        for number in range(100_000):
            context.report(f"step {number}", None)
            if number % 100 == 0:
                await asyncio.sleep(0)
        return "ok"

    events = await run(model_runtime(tools=[tool(work)]), turn("/tool test.tool {}"))
    told = only(ToolCallProgress, events)
    assert told[-1].message == "step 99999"
    seconds = one(ToolCallFinished, events).duration.total_seconds()
    assert len(told) <= seconds * 10 + 2


async def test_a_long_result_is_cut_and_says_so() -> None:
    async def long(context: ToolContext, arguments: Nothing) -> str:
        return "ü" * MAX_RESULT_BYTES

    events = await run(model_runtime(tools=[tool(long)]), turn("/tool test.tool {}\n/say 1"))
    content = one(ToolCallFinished, events).result.content
    assert len(content.encode()) <= MAX_RESULT_BYTES
    assert content.endswith(f"[cut here: the result is longer than {MAX_RESULT_BYTES} bytes]")


async def test_the_results_of_one_answer_share_what_a_message_holds() -> None:
    async def long(context: ToolContext, arguments: Nothing) -> str:
        return "x" * (MAX_RESULT_BYTES if arguments.times == 1 else 10)

    large, small = "/tool test.tool {}", '/tool test.tool {"times": 2}'
    message = "\n".join(["/tools", small, *[large] * 19, "/say 1"])
    events = await run(model_runtime(tools=[tool(long)]), turn(message))
    contents = [result.content for result in one(ToolsCompleted, events).results]
    assert contents[0] == "x" * 10
    assert all("[cut here: " in content for content in contents[1:])
    assert 0.99 * MAX_RESULTS_BYTES < sum(len(content.encode()) for content in contents) <= MAX_RESULTS_BYTES


async def test_a_result_holds_nothing_that_text_columns_refuse() -> None:
    async def odd(context: ToolContext, arguments: Nothing) -> str:
        return "a\0b\ud800c"

    events = await run(model_runtime(tools=[tool(odd)]), turn("/tool test.tool {}\n/say 1"))
    assert one(ToolCallFinished, events).result.content == "a\ufffdb?c"


async def test_a_failing_provider_takes_its_deltas_back() -> None:
    events: list[TurnEvent] = []
    with pytest.raises(RuntimeFailure, match="server"):
        await run(model_runtime(), turn("/say 2\n/fail server"), events)
    assert len(only(AnswerRestarted, events)) == 2
    assert len(only(TextDelta, events)) == 6


async def test_a_refusal_is_told_at_once() -> None:
    with pytest.raises(RuntimeFailure, match="too hot") as failed:
        await run(model_runtime(), turn("/fail too hot"))
    assert not failed.value.retryable


@pytest.mark.parametrize("model", ["demon", "anthropic:claude", "nobody:model", "demo:x"])
async def test_a_model_that_is_not_there_ends_the_turn(model: str) -> None:
    with pytest.raises(RuntimeFailure) as failed:
        await run(model_runtime(), turn("hi", model=model))
    assert (failed.value.reason, failed.value.retryable) == ("MODEL_UNAVAILABLE", False)


async def test_the_output_is_cut_where_the_specification_says() -> None:
    events = await run(model_runtime(), turn("/say 10", spec=AgentSpec("demo", max_output_tokens=4)))
    assert one(ModelCallStarted, events).max_output_tokens == 4
    assert said(events) == "word1 word2 word3 word4"
    assert one(AnswerCompleted, events).finish_reason == "length"


async def test_the_output_is_cut_where_the_budget_ends() -> None:
    estimates: list[int] = []

    def budget(estimated_input_tokens: int) -> int:
        estimates.append(estimated_input_tokens)
        return 20

    events = await run(model_runtime(), replace(turn("/say 100"), output_budget=budget))
    assert one(ModelCallStarted, events).max_output_tokens == 20
    assert estimates == [one(ModelCallStarted, events).max_input_tokens]
    assert said(events).split()[-1] == "word20"


async def test_a_call_that_could_say_next_to_nothing_is_not_made_so() -> None:
    events = await run(model_runtime(), replace(turn("/say 100"), output_budget=lambda most: 2))
    assert one(ModelCallStarted, events).max_output_tokens == LEAST_OUTPUT_TOKENS, "more than is left: a breach"


async def test_money_buys_as_many_tokens_as_it_pays_for() -> None:
    runtime = ModelRuntime(Providers([], DEAR), ToolSource(builtin_toolbox()), DEAR)
    events = await run(runtime, replace(turn("/say 1000", spec=AgentSpec("demo")), cost_budget=lambda: 1_000))
    started = one(ModelCallStarted, events)
    assert DEAR.most("demo", started.max_input_tokens, started.max_output_tokens) <= 1_000
    assert DEAR.most("demo", started.max_input_tokens, started.max_output_tokens + 2) > 1_000


async def test_the_estimate_of_input_grows_with_the_history() -> None:
    short = one(ModelCallStarted, await run(model_runtime(), turn("/say 1")))
    long = one(ModelCallStarted, await run(model_runtime(), turn("x" * 3000, "/say 1")))
    assert 1000 <= long.estimated_input_tokens - short.estimated_input_tokens <= 1010


async def test_sixteen_turns_share_one_client() -> None:
    runtime = model_runtime()
    turns = await asyncio.gather(*(run(runtime, turn("/say 100")) for _ in range(16)))
    assert {said(events) for events in turns} == {" ".join(f"word{number}" for number in range(1, 101))}
    assert (runtime.counters.misses, runtime.counters.hits) == (1, 15)
