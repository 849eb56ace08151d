"""What the relay lets through, and what not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from stationmaster_server.agents.providers import Protocol, ProviderSettings
from stationmaster_server.agents.runtimes.claude.relay import Line, Relay

from tests.agents.claude.conftest import KEY
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import End, StandIn
from tests.agents.providers.waiting import LIMIT

MODEL = "claude-sonnet-5"
ASK: dict[str, Any] = {"model": MODEL, "messages": [], "max_tokens": 100, "stream": True}


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


async def test_an_announced_call_is_passed_on_with_the_key(line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.answer(anthropic.text("Grüße")))
    line.allow(2, 100)
    reply = await ask(line)
    assert (reply.status_code, "Gr\\u00fc\\u00dfe" in reply.text) == (200, True)
    (request,) = provider.requests
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.body == ASK
    assert line.token not in str(request.headers)


async def test_no_second_answer_is_asked_for_until_it_is_announced(line: Line, provider: StandIn) -> None:
    provider.reply(*[anthropic.answer(anthropic.text("Hi."))] * 2)
    assert (await ask(line)).status_code == 400
    line.allow(3, 100)
    assert (await ask(line)).status_code == 200
    assert (await ask(line)).status_code == 400
    line.allow(3, 100)
    assert (await ask(line)).status_code == 200
    assert len(provider.requests) == 2


async def test_an_answer_that_failed_may_be_asked_for_again_as_often_as_is_allowed(
    line: Line, provider: StandIn
) -> None:
    provider.reply(*[anthropic.failure(500, "api_error", "broken")] * 3)
    line.allow(2, 100)
    assert [(await ask(line)).status_code for _ in range(3)] == [500, 500, 503]
    assert len(provider.requests) == 2


async def test_what_is_not_a_message_and_who_has_no_line_is_refused(line: Line, provider: StandIn) -> None:
    line.allow(3, 100)
    assert (await ask(line, "/v1/files")).status_code == 404
    assert (await ask(line, method="GET")).status_code == 404
    assert (await ask(line, token="another")).status_code == 401
    line.shut()
    assert (await ask(line)).status_code == 401
    assert provider.requests == []


@pytest.mark.parametrize(
    "changes", [{"model": "claude-opus-5"}, {"stream": False}, {"max_tokens": 101}], ids=["model", "whole", "longer"]
)
async def test_a_call_other_than_the_announced_is_refused(
    changes: dict[str, Any], line: Line, provider: StandIn
) -> None:
    line.allow(3, 100)
    assert (await ask(line, **changes)).status_code == 400
    assert provider.requests == []


async def test_a_broken_answer_is_not_made_whole(line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.cut(anthropic.text("Half"), anthropic.text("x")))
    line.allow(1, 100)
    with pytest.raises(httpx2.RemoteProtocolError):
        await ask(line)
    assert line.allowed


async def test_a_provider_that_is_not_there_is_told_as_such(relay: Relay) -> None:
    line = await relay.open(
        ProviderSettings("anthropic", Protocol.ANTHROPIC, KEY, "http://127.0.0.1:1"), MODEL, timedelta(seconds=2)
    )
    line.allow(1, 100)
    reply = await ask(line)
    assert (reply.status_code, KEY in reply.text) == (502, False)


async def test_who_goes_ends_the_call_to_the_provider(line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.cut(anthropic.text("Half"), anthropic.text("x"), end=End.HANG))
    line.allow(1, 100)
    asking = asyncio.create_task(ask(line))
    async with asyncio.timeout(LIMIT):
        await provider.hanging.wait()
        asking.cancel()
        await provider.client_gone.wait()


async def test_closing_ends_every_call(relay: Relay, line: Line, provider: StandIn) -> None:
    provider.reply(anthropic.cut(anthropic.text("Half"), anthropic.text("x"), end=End.HANG))
    line.allow(1, 100)
    asking = asyncio.create_task(ask(line))
    async with asyncio.timeout(LIMIT):
        await provider.hanging.wait()
        await relay.close()
        await provider.client_gone.wait()
        await asyncio.wait([asking])
    assert isinstance(asking.exception(), httpx2.RemoteProtocolError | httpx2.ReadError)
