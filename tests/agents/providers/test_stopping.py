"""Whoever closes a turn closes its connection."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from stationmaster_server.agents.providers import Protocol, ProviderSettings
from stationmaster_server.agents.runtime import RuntimeFailure, TextDelta
from stationmaster_server.agents.runtimes.model import ModelRuntime

from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers import openai_stream as openai
from tests.agents.providers.stand_in import End, Reply, StandIn
from tests.agents.providers.waiting import LIMIT
from tests.agents.turns import last_text, model_runtime, run, turn

ANTHROPIC, OPENAI = "anthropic:claude-sonnet-5", "openai:gpt-4o"
HANGING = [
    pytest.param(ANTHROPIC, anthropic.cut(anthropic.text("one ", "two"), end=End.HANG), id="anthropic"),
    pytest.param(OPENAI, openai.cut(openai.text("one ", "two"), end=End.HANG), id="openai"),
]


@pytest.mark.parametrize(("model", "reply"), HANGING)
async def test_closing_the_iterator_closes_the_connection_within_a_second(
    server: StandIn, runtime: ModelRuntime, model: str, reply: Reply
) -> None:
    server.reply(reply)
    async with aclosing(runtime.run(turn("hello", model=model))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    async with asyncio.timeout(1):
        await server.client_gone.wait()


@pytest.mark.parametrize(("model", "reply"), HANGING)
async def test_cancelling_the_task_closes_the_connection_within_a_second(
    server: StandIn, runtime: ModelRuntime, model: str, reply: Reply
) -> None:
    server.reply(reply)
    task = asyncio.create_task(run(runtime, turn("hello", model=model)))
    async with asyncio.timeout(LIMIT):
        await server.hanging.wait()
    task.cancel()
    async with asyncio.timeout(1):
        await server.client_gone.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_before_the_answer_begins_closes_the_connection(
    server: StandIn, runtime: ModelRuntime
) -> None:
    server.reply(Reply(end=End.HANG))
    task = asyncio.create_task(run(runtime, turn("hello", model=OPENAI)))
    async with asyncio.timeout(LIMIT):
        await server.hanging.wait()
    task.cancel()
    async with asyncio.timeout(1):
        await server.client_gone.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_client_goes_on_after_a_turn_was_closed(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(openai.cut(openai.text("one"), end=End.HANG), openai.answer(openai.text("two")))
    async with aclosing(runtime.run(turn("hello", model=OPENAI))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert last_text(await run(runtime, turn("again", model=OPENAI))) == "two"
    assert (runtime.counters.hits, runtime.counters.misses) == (1, 1)


async def test_a_provider_that_keeps_failing_is_left_alone(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(*[openai.failure(500, "out of order")] * 20)
    for _ in range(2):
        with pytest.raises(RuntimeFailure):
            await run(runtime, turn("hello", model=OPENAI))
    asked = len(server.requests)
    with pytest.raises(RuntimeFailure, match="left alone") as failed:
        await run(runtime, turn("hello", model=OPENAI))
    assert (asked, len(server.requests)) == (5, 5)
    assert (failed.value.reason, failed.value.retryable) == ("MODEL_UNAVAILABLE", True)


async def test_answers_that_break_off_count_as_failures_of_the_provider(server: StandIn, runtime: ModelRuntime) -> None:
    server.reply(*[openai.cut(openai.text("one"))] * 20)
    for _ in range(3):
        with pytest.raises(RuntimeFailure):
            await run(runtime, turn("hello", model=OPENAI))
    assert len(server.requests) == 5


async def test_a_silent_provider_is_given_up(server: StandIn) -> None:
    from datetime import timedelta

    silent = ProviderSettings(
        "openai", Protocol.OPENAI, "key", f"{server.url}/v1", silence_timeout=timedelta(milliseconds=50)
    )
    runtime = model_runtime(silent)
    server.reply(*[openai.cut(openai.text("one"), end=End.HANG)] * 3)
    with pytest.raises(RuntimeFailure) as failed:
        await run(runtime, turn("hello", model=OPENAI))
    assert failed.value.retryable
    await runtime.close()
