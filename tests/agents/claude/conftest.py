"""The server that answers, and runtimes whose provider it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest_asyncio
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.providers import Protocol, Providers, ProviderSettings
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime, ClaudeRuntimeSettings
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.agents.tools.source import ToolSource
from stationmaster_server.db.engine import Database

from tests.agents.providers.stand_in import StandIn, stand_in
from tests.agents.turns import FAST

KEY = "sk-ant-secret-0123456789"
MakeRuntime = Callable[..., ClaudeRuntime]


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[StandIn]:
    """A provider without a script."""
    async with stand_in() as running:
        yield running


@pytest_asyncio.fixture
async def make_runtime(provider: StandIn, database: Database, tmp_path: Path) -> AsyncIterator[MakeRuntime]:
    """Makes runtimes, each as on a server of its own; ends them."""
    async with AsyncExitStack() as stack:
        made = 0

        def make(*, max_live: int = 4, idle: timedelta = timedelta(minutes=5)) -> ClaudeRuntime:
            nonlocal made
            made += 1
            prices = Prices()
            settings = ClaudeRuntimeSettings(tmp_path / f"claude-{made}", max_live, idle, retries=FAST)
            providers = Providers([ProviderSettings("anthropic", Protocol.ANTHROPIC, KEY, provider.url)], prices)
            runtime = ClaudeRuntime(database, providers, ToolSource(builtin_toolbox()), prices, settings)
            stack.push_async_callback(runtime.close)
            return runtime

        yield make


@pytest_asyncio.fixture
async def runtime(make_runtime: MakeRuntime) -> ClaudeRuntime:
    """One runtime."""
    return make_runtime()
