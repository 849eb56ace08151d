"""The agents' part, built: providers from settings, the runtimes that there are, AgentService."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from stationmaster_server.agents.model import RuntimeName
from stationmaster_server.agents.prices import Price, Prices
from stationmaster_server.agents.providers import Protocol, Providers, ProviderSettings
from stationmaster_server.agents.runtimes.model import ModelRuntime
from stationmaster_server.agents.service import AgentService
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.app.transport import Gate
from stationmaster_server.config import ModelSettings
from stationmaster_server.config import ProviderSettings as Configured
from stationmaster_server.db.engine import Database
from stationmaster_server.sessions.store import sessions_using
from stationmaster_server.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Agents:
    """What runs turns."""

    service: AgentService
    runtime: ModelRuntime
    prices: Prices


def build_agents(
    stack: AsyncExitStack, settings: ModelSettings, database: Database, gate: Gate, metrics: Metrics
) -> Agents:
    """Build what runs turns."""
    prices = prices_of(settings)
    providers = Providers(provider_settings(settings), prices, demo=settings.demo)
    toolbox = builtin_toolbox()
    runtime = ModelRuntime(providers, toolbox, prices)
    stack.push_async_callback(runtime.close)
    clients = runtime.counters
    metrics.read(
        "model_clients",
        "What the cache of model clients did.",
        lambda: {"hit": clients.hits, "miss": clients.misses, "eviction": clients.evictions},
        label="event",
        total=True,
    )
    service = AgentService(database, gate.audit, providers, {RuntimeName.MODEL}, sessions_using, toolbox)
    return Agents(service, runtime, prices)


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
    named = (
        ("anthropic", Protocol.ANTHROPIC, settings.anthropic),
        ("openai", Protocol.OPENAI, settings.openai),
        ("google", Protocol.GOOGLE, settings.google),
    )
    for name, protocol, configured in named:
        if configured.api_key is not None:
            yield _provider(name, protocol, configured)
    for name, configured in settings.compatible.items():
        yield _provider(name, Protocol.OPENAI_COMPATIBLE, configured)


def _provider(name: str, protocol: Protocol, configured: Configured) -> ProviderSettings:
    key = configured.api_key.get_secret_value() if configured.api_key else ""
    return ProviderSettings(name, protocol, key, configured.base_url, configured.models)
