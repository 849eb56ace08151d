"""Whatever a provider does, the turn ends as it should, its session is free, and what was said is kept.

Both protocols, from a server's settings to what a client of the API sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from stationmaster.v1 import event_pb2, session_pb2
from stationmaster_client import Client
from stationmaster_server.agents.runtimes.retries import Retries

from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers import openai_stream as openai
from tests.agents.providers.stand_in import End, Reply, StandIn, sse, stand_in
from tests.fixtures.server import RunningServer, running, server_settings
from tests.waiting import until

SECRET = "sk-secret-0123456789"
LIMIT_SECONDS = 60
ATTEMPTS = Retries().attempts


@dataclass(frozen=True)
class Wire:
    """A provider's protocol: what the stand-in says in it."""

    model: str
    text: Callable[..., Any]
    tool: Callable[..., Any]
    answer: Callable[..., Reply]
    cut: Callable[..., Reply]
    failure: Callable[..., Reply]
    thinking: Callable[..., Any]
    not_json: Reply


_ANTHROPIC_KINDS = {401: "authentication_error", 429: "rate_limit_error", 500: "api_error"}
WIRES = {
    "anthropic": Wire(
        "anthropic:claude-sonnet-5",
        anthropic.text,
        anthropic.tool,
        anthropic.answer,
        anthropic.cut,
        lambda status, message, **headers: anthropic.failure(status, _ANTHROPIC_KINDS[status], message, **headers),
        lambda *pieces: anthropic.thinking(*pieces, signature="signed"),
        Reply([*anthropic.cut(anthropic.text("Hel", "lo")).chunks, sse("{broken", "content_block_delta")]),
    ),
    "openai": Wire(
        "openai:gpt-4o",
        openai.text,
        lambda name, arguments, call_id, index=0: openai.tool(name, arguments, call_id, index),
        openai.answer,
        openai.cut,
        openai.failure,
        openai.reasoning,
        Reply([*openai.cut(openai.text("Hel", "lo")).chunks, sse("{broken")]),
    ),
}


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[StandIn]:
    async with stand_in() as started:
        yield started


@pytest_asyncio.fixture
async def server(database_url: str, tmp_path: Path, provider: StandIn) -> AsyncIterator[RunningServer]:
    """A server whose providers are the stand-in."""
    models = {
        "anthropic": {"api_key": SECRET, "base_url": provider.url},
        "openai": {"api_key": SECRET, "base_url": f"{provider.url}/v1"},
    }
    async with running(server_settings(tmp_path / "data", database_url, models=models)) as started:
        yield started


async def test_a_price_of_the_settings_goes_before_the_catalogue_and_an_unknown_one_is_marked(
    database_url: str, tmp_path: Path, provider: StandIn
) -> None:
    models = {
        "anthropic": {"api_key": SECRET, "base_url": provider.url},
        "prices": {"anthropic:claude-sonnet-5": {"input": 1, "output": 10, "cache_read": 2, "cache_write": 3}},
        "unknown_price": {"input": 100, "output": 1000},
    }
    own_price = 100 * 1 + 40 * 2 + 10 * 3 + 20 * 10
    unknown = 150 * 100 + 20 * 1000
    async with (
        running(server_settings(tmp_path / "data", database_url, models=models)) as server,
        Client.connect(server.target, server.admin_key) as client,
    ):
        for model, cost, estimated in (
            ("anthropic:claude-sonnet-5", own_price, False),
            ("anthropic:claude-of-tomorrow", unknown, True),
        ):
            provider.reply(anthropic.answer(anthropic.text("Hi")))
            talk = Conversation(client, (await client.sessions.create(model=model)).name)
            usage = (await talk.say("hello")).usage
            assert (usage.cost_micros, usage.cost_estimated) == (cost, estimated)


@dataclass
class Conversation:
    """A session of one of the models, and what came of its turns."""

    client: Client
    name: str
    events: list[event_pb2.Event] = field(default_factory=list)

    async def say(self, text: str) -> session_pb2.Turn:
        """Send a message, wait for the end of its turn and return it; the session is then free."""
        async with asyncio.timeout(LIMIT_SECONDS), self.client.sessions.send(self.name, text) as stream:
            self.events = [event async for event in stream]
        turn = await self.client.sessions.turn(stream.turn)
        finished = self.events[-1].turn_finished
        assert (finished.state, finished.reason) == (turn.state, turn.reason)
        assert finished.usage == turn.usage
        assert SECRET not in str(self.events)
        assert (await self.client.sessions.get(self.name)).state == session_pb2.SESSION_STATE_ACTIVE
        return turn

    def of(self, kind: str) -> list[Any]:
        """The payloads of one kind of event, of the turn that was said last."""
        return [getattr(event, kind) for event in self.events if event.WhichOneof("payload") == kind]

    async def messages(self) -> list[event_pb2.Message]:
        """All messages."""
        return [message async for message in self.client.sessions.messages(self.name)]


@pytest_asyncio.fixture
async def talk(server: RunningServer, wire: Wire) -> AsyncIterator[Conversation]:
    async with Client.connect(server.target, server.admin_key) as client:
        session = await client.sessions.create(model=wire.model, tools=["math.*"])
        yield Conversation(client, session.name)


def words(message: event_pb2.Message) -> str:
    return "".join(part.text for part in message.parts)


def roles(messages: Sequence[event_pb2.Message]) -> list[str]:
    return [event_pb2.MessageRole.Name(message.role).removeprefix("MESSAGE_ROLE_") for message in messages]


async def goes_on(talk: Conversation, wire: Wire, provider: StandIn) -> None:
    """The next turn of the session is answered: nothing of the last one is in its way."""
    provider.replies.clear()
    provider.reply(wire.answer(wire.text("Here again")))
    turn = await talk.say("and now?")
    assert turn.state == event_pb2.TURN_STATE_COMPLETED
    assert words((await talk.messages())[-1]) == "Here again"


async def test_text_streams_and_completes_the_turn(talk: Conversation, wire: Wire, provider: StandIn) -> None:
    provider.reply(wire.answer(wire.text("Good ", "day")))
    turn = await talk.say("hello")
    assert (turn.state, turn.reason) == (event_pb2.TURN_STATE_COMPLETED, "")
    assert "".join(delta.text for delta in talk.of("text_delta")) == "Good day"
    asked, answered = await talk.messages()
    assert (words(asked), words(answered), answered.interrupted) == ("hello", "Good day", False)
    assert answered.provenance.model == wire.model
    assert turn.usage.running_time.ToNanoseconds() > 0
    turn.usage.ClearField("running_time")
    assert answered.provenance.usage == turn.usage
    assert turn.usage.input_tokens > 0
    assert (turn.usage.output_tokens, turn.usage.model_calls, turn.usage.cost_estimated) == (20, 1, False)
    assert turn.usage.cost_micros > 0
    await goes_on(talk, wire, provider)


async def test_thinking_streams_apart_from_the_text_and_is_kept(
    talk: Conversation, wire: Wire, provider: StandIn
) -> None:
    provider.reply(wire.answer(wire.thinking("Let me ", "see"), wire.text("Four")))
    assert (await talk.say("2+2?")).state == event_pb2.TURN_STATE_COMPLETED
    assert "".join(delta.text for delta in talk.of("thinking_delta")) == "Let me see"
    assert "".join(delta.text for delta in talk.of("text_delta")) == "Four"
    answered = (await talk.messages())[-1]
    assert [part.WhichOneof("part") for part in answered.parts] == ["thinking", "text"]
    await goes_on(talk, wire, provider)


async def test_tool_calls_of_one_answer_all_run_and_their_results_go_back_together(
    talk: Conversation, wire: Wire, provider: StandIn
) -> None:
    calls = [
        wire.tool("math_evaluate", {"expression": "6*7"}, "call_1"),
        wire.tool("math_evaluate", {"expression": "6+7"}, "call_2", **({"index": 1} if wire.model[0] == "o" else {})),
    ]
    provider.reply(wire.answer(*calls), wire.answer(wire.text("42 and 13")))
    turn = await talk.say("both, please")
    assert turn.state == event_pb2.TURN_STATE_COMPLETED
    assert (turn.usage.tool_calls, turn.usage.model_calls) == (2, 2)
    assert [finished.result.content for finished in talk.of("tool_call_finished")] == ["42", "13"]
    messages = await talk.messages()
    assert roles(messages) == ["USER", "ASSISTANT", "TOOL", "ASSISTANT"]
    assert [part.tool_result.content for part in messages[2].parts] == ["42", "13"]
    sent = str(provider.requests[1].body["messages"])
    assert sent.index("'42'") < sent.index("'13'")
    await goes_on(talk, wire, provider)


async def test_refused_key_fails_the_turn_at_once_and_is_not_told(
    talk: Conversation, wire: Wire, provider: StandIn
) -> None:
    provider.reply(wire.failure(401, f"invalid key {SECRET}"))
    turn = await talk.say("hello")
    assert (turn.state, turn.reason) == (event_pb2.TURN_STATE_FAILED, "MODEL_UNAVAILABLE")
    assert SECRET not in turn.error_message
    assert len(provider.requests) == 1
    assert roles(await talk.messages()) == ["USER"]
    assert turn.usage.cost_micros == 0
    await goes_on(talk, wire, provider)


async def test_rate_limit_is_waited_for_as_long_as_the_provider_asks(
    talk: Conversation, wire: Wire, provider: StandIn
) -> None:
    provider.reply(wire.failure(429, "slow down", retry_after="1"), wire.answer(wire.text("Hi")))
    turn = await talk.say("hello")
    assert turn.state == event_pb2.TURN_STATE_COMPLETED
    assert (await talk.messages())[-1].provenance.latency.ToMilliseconds() >= 1000
    assert len(provider.requests) == 2
    assert talk.of("answer_restarted") == []
    await goes_on(talk, wire, provider)


async def test_rate_limit_that_is_too_long_fails_the_turn(talk: Conversation, wire: Wire, provider: StandIn) -> None:
    provider.reply(wire.failure(429, "slow down", retry_after="3600"))
    turn = await talk.say("hello")
    assert (turn.state, turn.reason) == (event_pb2.TURN_STATE_FAILED, "RATE_LIMITED")
    assert "slow down" in turn.error_message
    assert len(provider.requests) == 1
    await goes_on(talk, wire, provider)


async def test_failure_of_the_provider_is_tried_again(talk: Conversation, wire: Wire, provider: StandIn) -> None:
    provider.reply(wire.failure(500, "out of order"), wire.answer(wire.text("Hi")))
    turn = await talk.say("hello")
    assert turn.state == event_pb2.TURN_STATE_COMPLETED
    assert roles(await talk.messages()) == ["USER", "ASSISTANT"]
    await goes_on(talk, wire, provider)


async def test_provider_that_keeps_failing_fails_the_turn(talk: Conversation, wire: Wire, provider: StandIn) -> None:
    provider.reply(*[wire.failure(500, "out of order")] * 10)
    turn = await talk.say("hello")
    assert (turn.state, turn.reason) == (event_pb2.TURN_STATE_FAILED, "MODEL_UNAVAILABLE")
    assert "out of order" in turn.error_message
    assert len(provider.requests) == ATTEMPTS
    assert turn.attempts == 1
    assert roles(await talk.messages()) == ["USER"]
    await goes_on(talk, wire, provider)


@pytest.mark.parametrize("end", [End.BREAK, End.EARLY])
async def test_answer_that_is_cut_is_given_again_and_the_first_piece_taken_back(
    talk: Conversation, wire: Wire, provider: StandIn, end: End
) -> None:
    provider.reply(wire.cut(wire.text("Hel", "lo"), end=end), wire.answer(wire.text("Good day")))
    turn = await talk.say("hello")
    assert turn.state == event_pb2.TURN_STATE_COMPLETED
    (restarted,) = talk.of("answer_restarted")
    taken_back = range(restarted.replaces.first_sequence, restarted.replaces.last_sequence + 1)
    said = [event for event in talk.events if event.HasField("text_delta")]
    assert "".join(event.text_delta.text for event in said if event.sequence in taken_back) == "Hello"
    assert "".join(event.text_delta.text for event in said if event.sequence not in taken_back) == "Good day"
    assert [words(message) for message in await talk.messages()] == ["hello", "Good day"]
    assert turn.usage.model_calls == 2, "what the cut attempt used is paid for as well"
    await goes_on(talk, wire, provider)


async def test_answer_that_is_always_cut_fails_the_turn_and_what_was_said_is_kept(
    talk: Conversation, wire: Wire, provider: StandIn
) -> None:
    provider.reply(*[wire.cut(wire.text("Hel", "lo"))] * 10)
    turn = await talk.say("hello")
    assert (turn.state, turn.reason) == (event_pb2.TURN_STATE_FAILED, "MODEL_UNAVAILABLE")
    assert len(talk.of("answer_restarted")) == ATTEMPTS - 1
    kept = (await talk.messages())[-1]
    assert (words(kept), kept.interrupted) == ("Hello", True)
    assert turn.usage.model_calls == ATTEMPTS, "what was said in vain is paid for as well"
    assert turn.usage.input_tokens >= 100 * ATTEMPTS
    assert (await talk.client.sessions.get(talk.name)).usage == turn.usage
    await goes_on(talk, wire, provider)


async def test_stream_that_is_no_json_is_an_answer_that_is_cut(
    talk: Conversation, wire: Wire, provider: StandIn
) -> None:
    provider.reply(wire.not_json, wire.answer(wire.text("Good day")))
    turn = await talk.say("hello")
    assert turn.state == event_pb2.TURN_STATE_COMPLETED
    assert len(talk.of("answer_restarted")) == 1
    assert words((await talk.messages())[-1]) == "Good day"
    await goes_on(talk, wire, provider)


async def test_stream_that_is_never_json_fails_the_turn(talk: Conversation, wire: Wire, provider: StandIn) -> None:
    provider.reply(*[wire.not_json] * 10)
    turn = await talk.say("hello")
    assert (turn.state, turn.reason) == (event_pb2.TURN_STATE_FAILED, "MODEL_UNAVAILABLE")
    assert len(provider.requests) == ATTEMPTS
    await goes_on(talk, wire, provider)


async def test_body_that_is_no_stream_at_all_fails_the_turn(talk: Conversation, wire: Wire, provider: StandIn) -> None:
    provider.reply(*[Reply([b"<html>welcome</html>"], 200, {"content-type": "text/html"})] * 10)
    turn = await talk.say("hello")
    assert (turn.state, turn.reason) == (event_pb2.TURN_STATE_FAILED, "MODEL_UNAVAILABLE")
    assert roles(await talk.messages()) == ["USER"]
    await goes_on(talk, wire, provider)


async def test_arguments_that_are_no_json_are_told_to_the_model(
    talk: Conversation, wire: Wire, provider: StandIn
) -> None:
    broken = wire.tool("math_evaluate", '{"expression": ', "call_1")
    provider.reply(wire.answer(broken), wire.answer(wire.text("Sorry")))
    turn = await talk.say("6*7?")
    assert turn.state == event_pb2.TURN_STATE_COMPLETED
    messages = await talk.messages()
    assert roles(messages) == ["USER", "ASSISTANT", "TOOL", "ASSISTANT"]
    assert messages[2].parts[0].tool_result.is_error
    await goes_on(talk, wire, provider)


async def test_cancel_within_an_answer_keeps_what_was_said(talk: Conversation, wire: Wire, provider: StandIn) -> None:
    provider.reply(wire.cut(wire.text("Hel", "lo"), end=End.HANG))
    turn = await _cancelled(talk, provider, lambda event: event.HasField("text_delta"))
    assert turn.state == event_pb2.TURN_STATE_CANCELLED
    asked, kept = await talk.messages()
    assert (words(asked), kept.interrupted) == ("hello", True)
    assert words(kept) in "Hello"
    assert words(kept) == "".join(delta.text for delta in talk.of("text_delta"))
    await goes_on(talk, wire, provider)


async def test_cancel_after_an_answer_was_cut_pays_for_both_attempts(
    talk: Conversation, wire: Wire, provider: StandIn
) -> None:
    provider.reply(wire.cut(wire.text("Hel", "lo")), wire.cut(wire.text("Good"), end=End.HANG))
    turn = await _cancelled(talk, provider, lambda event: event.HasField("answer_restarted"))
    assert turn.state == event_pb2.TURN_STATE_CANCELLED
    assert turn.usage.model_calls == 2
    await goes_on(talk, wire, provider)


async def test_cancel_before_the_answer_begins_ends_the_call(talk: Conversation, wire: Wire, provider: StandIn) -> None:
    provider.reply(Reply(end=End.HANG))
    turn = await _cancelled(talk, provider, lambda event: event.HasField("turn_started"))
    assert turn.state == event_pb2.TURN_STATE_CANCELLED
    assert roles(await talk.messages()) == ["USER"]
    await goes_on(talk, wire, provider)


async def test_cancel_while_a_rate_limit_is_waited_for_ends_the_turn(
    talk: Conversation, wire: Wire, provider: StandIn
) -> None:
    provider.reply(wire.failure(429, "slow down", retry_after="20"), wire.answer(wire.text("too late")))
    async with asyncio.timeout(15):
        turn = await _cancelled(talk, provider, lambda event: event.HasField("turn_started"), hangs=False)
    assert turn.state == event_pb2.TURN_STATE_CANCELLED
    assert roles(await talk.messages()) == ["USER"]
    await goes_on(talk, wire, provider)


async def _cancelled(
    talk: Conversation, provider: StandIn, when: Callable[[event_pb2.Event], bool], *, hangs: bool = True
) -> session_pb2.Turn:
    """The turn of "hello", cancelled after an event; its call of the provider has ended as well."""
    talk.events, cancelled = [], False
    async with asyncio.timeout(LIMIT_SECONDS), talk.client.sessions.send(talk.name, "hello") as stream:
        async for event in stream:
            talk.events.append(event)
            if when(event) and not cancelled:
                cancelled = True
                await (provider.hanging.wait() if hangs else until(lambda: _was_asked(provider)))
                await talk.client.sessions.cancel(stream.turn)
    if hangs:
        async with asyncio.timeout(LIMIT_SECONDS):
            await provider.client_gone.wait()
    assert (await talk.client.sessions.get(talk.name)).state == session_pb2.SESSION_STATE_ACTIVE
    return await talk.client.sessions.turn(stream.turn)


async def _was_asked(provider: StandIn) -> bool:
    return bool(provider.requests)
