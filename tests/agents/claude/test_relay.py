"""What the relay lets through, and what not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from stationmaster_server.agents.providers import Protocol, ProviderSettings
from stationmaster_server.agents.runtimes.claude.line import Held, Line
from stationmaster_server.agents.runtimes.claude.relay import Relay

from tests.agents.claude.conftest import KEY
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import End, Reply, StandIn
from tests.agents.providers.waiting import LIMIT

MODEL = "claude-sonnet-5"
ASK: dict[str, Any] = {"model": MODEL, "messages": [], "max_tokens": 100, "stream": True}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}


@pytest_asyncio.fixture
async def relay() -> AsyncIterator[Relay]:
    """A relay without lines."""
    running = Relay()
    yield running
    await running.close()


@pytest_asyncio.fixture
async def line(relay: Relay, provider: StandIn) -> Line:
    """A line to the provider."""
    return await relay.open(
        ProviderSettings("anthropic", Protocol.ANTHROPIC, KEY, provider.url), MODEL, timedelta(seconds=2)
    )


async def ask(
    line: Line, path: str = "/v1/messages", token: str = "", method: str = "POST", **changes: Any
) -> httpx2.Response:
    """One call of a command line."""
    headers = {"x-api-key": token or line.token, "anthropic-version": "2023-06-01"}
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.request(method, line.url + path, headers=headers, json=ASK | changes)


@contextmanager
def granting(line: Line, most: int = 100) -> Iterator[list[Any]]:
    """Somebody who pays for every call; what he hears besides."""
    heard: list[Any] = []

    async def pay() -> None:
        while True:
            news = await line.news.get()
            if isinstance(news, Held):
                news.grant(most)
            else:
                heard.append(news)

    paying = asyncio.create_task(pay())
    try:
        yield heard
    finally:
        paying.cancel()


async def held(line: Line) -> Held:
    """The call that waits."""
    async with asyncio.timeout(LIMIT):
        news = await line.news.get()
    assert isinstance(news, Held)
    return news


async def test_an_announced_call_is_passed_on_with_the_key(line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.answer(anthropic.text("Grüße")))
    line.allow(2)
    with granting(line) as heard:
        reply = await ask(line)
    assert (reply.status_code, "Gr\\u00fc\\u00dfe" in reply.text) == (200, True)
    (request,) = provider.requests
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.body == ASK
    assert line.token not in str(request.headers)
    assert [event["type"] for event in heard][:1] + [event["type"] for event in heard][-1:] == [
        "message_start",
        "message_stop",
    ]


async def test_what_the_provider_says_of_the_key_reaches_no_command_line(line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.failure(401, "authentication_error", f"I do not know {KEY}."))
    line.allow(1)
    with granting(line):
        reply = await ask(line)
    assert reply.json()["error"]["message"] == "I do not know ***."
    assert line.failure == (401, "I do not know ***.")


async def test_a_call_is_held_back_until_it_is_paid_for(line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.answer(anthropic.text("Hi.")))
    line.allow(2)
    messages = [{"role": "user", "content": [{"type": "text", "text": "Grüße, " * 1_000}]}]
    asking = asyncio.create_task(ask(line, messages=messages))
    waiting = await held(line)
    assert provider.requests == []
    assert waiting.request.max_output_tokens == 100
    sent = len(json.dumps(ASK | {"messages": messages}, ensure_ascii=False, separators=(",", ":")).encode())
    assert sent < waiting.request.most_input_tokens < sent + 400
    assert 0 < waiting.request.estimated_input_tokens < sent
    waiting.grant(100)
    async with asyncio.timeout(LIMIT):
        assert (await asking).status_code == 200


async def test_a_call_says_no_more_than_it_is_granted(line: Line, provider: StandIn) -> None:
    provider.reply(*[anthropic.answer(anthropic.text("Hi."))] * 3)
    thinking = {"type": "enabled", "budget_tokens": 8_191, "display": "updates"}
    management = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    for granted in (8_192, 2_000, 40):
        line.allow(1)
        with granting(line, granted):
            await ask(line, max_tokens=8_192, thinking=thinking, context_management=management)
    bodies = [request.body for request in provider.requests]
    assert [body["max_tokens"] for body in bodies] == [8_192, 2_000, 40]
    assert [body.get("thinking") for body in bodies] == [thinking, thinking | {"budget_tokens": 1_999}, None]
    assert [body.get("context_management") for body in bodies] == [management, management, None]


async def test_a_call_that_nobody_pays_for_is_refused_and_not_sent(line: Line, provider: StandIn) -> None:
    line.allow(2)
    asking = asyncio.create_task(ask(line))
    await held(line)
    line.shut()
    async with asyncio.timeout(LIMIT):
        reply = await asking
    assert (reply.status_code, reply.headers["x-should-retry"]) == (400, "false")
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert provider.requests == []


async def test_of_two_calls_at_once_one_is_let_through(line: Line, provider: StandIn) -> None:
    provider.reply(*[anthropic.answer(anthropic.text("Hi."))] * 2)
    line.allow(3)
    with granting(line):
        replies = await asyncio.gather(ask(line), ask(line))
    assert sorted(reply.status_code for reply in replies) == [200, 400]
    assert len(provider.requests) == 1


async def test_no_second_answer_is_asked_for_until_it_is_announced(line: Line, provider: StandIn) -> None:
    provider.reply(*[anthropic.answer(anthropic.text("Hi."))] * 2)
    with granting(line):
        assert (await ask(line)).status_code == 400
        line.allow(3)
        assert (await ask(line)).status_code == 200
        assert (await ask(line)).status_code == 400
        line.allow(3)
        assert (await ask(line)).status_code == 200
    assert len(provider.requests) == 2


async def test_an_answer_that_failed_may_be_asked_for_again_as_often_as_is_allowed(
    line: Line, provider: StandIn
) -> None:
    provider.reply(*[anthropic.failure(500, "api_error", "broken")] * 3)
    line.allow(2)
    with granting(line):
        assert [(await ask(line)).status_code for _ in range(3)] == [500, 500, 503]
    assert len(provider.requests) == 2


async def test_what_is_not_a_message_and_who_has_no_line_is_refused(line: Line, provider: StandIn) -> None:
    line.allow(3)
    assert (await ask(line, "/v1/files")).status_code == 404
    assert (await ask(line, "/v1/messages/count_tokens")).status_code == 404
    assert (await ask(line, method="GET")).status_code == 404
    assert (await ask(line, token="another")).status_code == 401
    line.shut()
    assert (await ask(line)).status_code == 401
    assert provider.requests == []


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "claude-opus-5"},
        {"stream": False},
        {"max_tokens": 0},
        {"max_tokens": -5},
        {"messages": None},
        {"messages": [{"role": "user", "content": [PICTURE]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [PICTURE]}]}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"mcp_servers": [{"type": "url", "url": "https://mcp.example", "name": "theirs"}]},
    ],
    ids=["model", "whole", "nothing", "less", "no messages", "picture", "picture of a tool", "their tool", "their MCP"],
)
async def test_a_call_other_than_the_announced_or_of_unknown_cost_is_refused(
    changes: dict[str, Any], line: Line, provider: StandIn
) -> None:
    line.allow(3)
    with granting(line):
        assert (await ask(line, **changes)).status_code == 400
    assert provider.requests == []


async def test_a_broken_answer_is_not_made_whole(line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.cut(anthropic.text("Half"), anthropic.text("x")))
    line.allow(1)
    with granting(line), pytest.raises(httpx2.RemoteProtocolError):
        await ask(line)
    assert line.allowed


async def test_an_answer_that_is_no_stream_of_events_breaks_off(line: Line, provider: StandIn) -> None:
    provider.reply(*[Reply([b"data: [1, 2]\n\n"]), Reply([b"data: {\n\n"])])
    line.allow(2)
    with granting(line) as heard:
        for _ in range(2):
            with pytest.raises(httpx2.RemoteProtocolError):
                await ask(line)
    assert heard == []


async def test_a_provider_that_is_not_there_is_told_as_such(relay: Relay) -> None:
    line = await relay.open(
        ProviderSettings("anthropic", Protocol.ANTHROPIC, KEY, "http://127.0.0.1:1"), MODEL, timedelta(seconds=2)
    )
    line.allow(1)
    with granting(line):
        reply = await ask(line)
    assert (reply.status_code, KEY in reply.text) == (502, False)


async def test_who_goes_ends_the_call_to_the_provider(line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.cut(anthropic.text("Half"), anthropic.text("x"), end=End.HANG))
    line.allow(1)
    with granting(line):
        asking = asyncio.create_task(ask(line))
        async with asyncio.timeout(LIMIT):
            await provider.hanging.wait()
            asking.cancel()
            await provider.client_gone.wait()


async def test_closing_ends_every_call(relay: Relay, line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.cut(anthropic.text("Half"), anthropic.text("x"), end=End.HANG))
    line.allow(1)
    with granting(line):
        asking = asyncio.create_task(ask(line))
        async with asyncio.timeout(LIMIT):
            await provider.hanging.wait()
            await relay.close()
            await provider.client_gone.wait()
            await asyncio.wait([asking])
    assert isinstance(asking.exception(), httpx2.RemoteProtocolError | httpx2.ReadError)
