"""The agents' part, built: providers from settings, the runtimes that there are, AgentService."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from uuid import UUID

from stationmaster_server.agents.keys import ModelKeys
from stationmaster_server.agents.model import RuntimeName
from stationmaster_server.agents.prices import Price, Prices
from stationmaster_server.agents.providers import Protocol, Providers, ProviderSettings
from stationmaster_server.agents.runtime import Runtime
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime, ClaudeRuntimeSettings, lacking
from stationmaster_server.agents.runtimes.model import ModelRuntime
from stationmaster_server.agents.service import AgentService
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.agents.tools.mcp import McpTools
from stationmaster_server.agents.tools.source import ToolSource
from stationmaster_server.app.mcp import Mcp
from stationmaster_server.app.transport import Gate
from stationmaster_server.config import ModelSettings, Settings
from stationmaster_server.config import ProviderSettings as Configured
from stationmaster_server.config.storage import PlaceKind
from stationmaster_server.credentials.using import Using
from stationmaster_server.db.engine import Database
from stationmaster_server.sessions.store import sessions_using
from stationmaster_server.storage.places.place import Place
from stationmaster_server.telemetry.metrics import Metrics

CLAUDE = "claude"


@dataclass(frozen=True, slots=True)
class Agents:
    """What runs turns."""

    service: AgentService
    runtime: ModelRuntime
    claude: ClaudeRuntime | None
    """Where the Claude Agent SDK is installed, and wanted."""
    prices: Prices

    @property
    def runtimes(self) -> Mapping[RuntimeName, Runtime]:
        """The runtimes that there are, by name."""
        model: dict[RuntimeName, Runtime] = {RuntimeName.MODEL: self.runtime}
        return model if self.claude is None else model | {RuntimeName.CLAUDE: self.claude}

    async def close_session(self, session_id: UUID) -> None:
        """Let go of whatever is kept for a session."""
        for runtime in self.runtimes.values():
            await runtime.close_session(session_id)


def build_agents(
    stack: AsyncExitStack,
    all_settings: Settings,
    database: Database,
    gate: Gate,
    mcp: Mcp,
    metrics: Metrics,
    using: Using,
    bucket: Place | None,
) -> Agents:
    """Build what runs turns. `bucket`: where workspaces are, when they are no folders of this host."""
    settings = all_settings.models
    prices = prices_of(settings)
    providers = Providers(provider_settings(settings), prices, demo=settings.demo, keyless=keyless(settings))
    toolbox = builtin_toolbox(bucket)
    source = ToolSource(toolbox, McpTools(mcp.registry, mcp.connections))
    keys = ModelKeys(database, using)
    runtime = ModelRuntime(providers, source, prices, keys=keys)
    stack.push_async_callback(runtime.close)
    clients = runtime.counters
    metrics.read(
        "model_clients",
        "What the cache of model clients did.",
        lambda: {"hit": clients.hits, "miss": clients.misses, "eviction": clients.evictions},
        label="event",
        total=True,
    )
    claude = build_claude(stack, all_settings, database, providers, source, prices, metrics, keys)
    runtimes = {RuntimeName.MODEL} if claude is None else {RuntimeName.MODEL, RuntimeName.CLAUDE}
    service = AgentService(database, gate.audit, providers, runtimes, sessions_using, toolbox, mcp.registry)
    return Agents(service, runtime, claude, prices)


def build_claude(
    stack: AsyncExitStack,
    settings: Settings,
    database: Database,
    providers: Providers,
    source: ToolSource,
    prices: Prices,
    metrics: Metrics,
    keys: ModelKeys,
) -> ClaudeRuntime | None:
    """Build the runtime `claude`, if the SDK is installed."""
    wanted = settings.models.claude
    # It works in a folder.
    if settings.storage.place is not PlaceKind.LOCAL or not wanted.enabled or lacking():
        return None
    limits = ClaudeRuntimeSettings(settings.data_folder / CLAUDE, wanted.max_live, wanted.idle_timeout)
    runtime = ClaudeRuntime(database, providers, source, prices, limits, keys)
    stack.push_async_callback(runtime.close)
    metrics.read("claude_processes", "Command lines of the Claude Agent SDK that live.", lambda: runtime.live)
    return runtime


def warm_up(stack: AsyncExitStack, settings: ModelSettings, agents: Agents) -> None:
    """Import what the first turn needs, so that it need not wait for that."""
    if not settings.demo:
        return
    warming = asyncio.create_task(agents.runtime.warm(), name="warm up the model runtime")

    async def end() -> None:
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)

    stack.push_async_callback(end)


def prices_of(settings: ModelSettings) -> Prices:
    """What models cost."""
    own = {
        model_id: Price(
            _micros(price.input),
            _micros(price.output),
            None if price.cache_read is None else _micros(price.cache_read),
            None if price.cache_write is None else _micros(price.cache_write),
        )
        for model_id, price in settings.prices.items()
    }
    unknown = settings.unknown_price
    return Prices(own, Price(_micros(unknown.input), _micros(unknown.output)))


def _micros(dollars: Decimal) -> int:
    return int((dollars * 1_000_000).to_integral_value(ROUND_CEILING))


def provider_settings(settings: ModelSettings) -> Iterator[ProviderSettings]:
    """The providers that are configured: those with a key, and servers of one's own, which need none."""
    yield from (provider for provider in keyless(settings) if provider.api_key)
    for name, configured in settings.compatible.items():
        yield _provider(name, Protocol.OPENAI_COMPATIBLE, configured)


def keyless(settings: ModelSettings) -> Iterator[ProviderSettings]:
    """The providers that everybody knows, with a key or without."""
    yield _provider("anthropic", Protocol.ANTHROPIC, settings.anthropic)
    yield _provider("openai", Protocol.OPENAI, settings.openai)
    yield _provider("google", Protocol.GOOGLE, settings.google)


def _provider(name: str, protocol: Protocol, configured: Configured) -> ProviderSettings:
    key = configured.api_key.get_secret_value() if configured.api_key else ""
    return ProviderSettings(name, protocol, key, configured.base_url, configured.models)
