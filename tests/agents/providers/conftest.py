"""The servers and runtimes of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from stationmaster_server.agents.providers import Protocol, ProviderSettings
from stationmaster_server.agents.runtimes.model import ModelRuntime

from tests.agents.providers.stand_in import StandIn, stand_in
from tests.agents.turns import model_runtime

ANTHROPIC_KEY = "sk-ant-secret-0123456789"
OPENAI_KEY = "sk-secret-0123456789"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[StandIn]:
    """A server without a script."""
    async with stand_in() as running:
        yield running


@pytest_asyncio.fixture
async def runtime(server: StandIn) -> AsyncIterator[ModelRuntime]:
    """A runtime whose providers are the server."""
    running = model_runtime(
        ProviderSettings("anthropic", Protocol.ANTHROPIC, ANTHROPIC_KEY, server.url),
        ProviderSettings("openai", Protocol.OPENAI, OPENAI_KEY, f"{server.url}/v1"),
        ProviderSettings("local", Protocol.OPENAI_COMPATIBLE, base_url=f"{server.url}/v1"),
    )
    yield running
    await running.close()
