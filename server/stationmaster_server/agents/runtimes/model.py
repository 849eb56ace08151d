"""The runtime `model`: a turn loop of our own (`loop.py`) over pydantic-ai's model layer.

pydantic-ai takes more than a second to import: it is imported with the first model client, in a thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from stationmaster_server.agents.executors import Counters, Executors
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.providers import ModelClient, Providers
from stationmaster_server.agents.runtime import RuntimeFailure, TurnEvent, TurnInput
from stationmaster_server.agents.runtimes.retries import Retries
from stationmaster_server.agents.tools.source import Offered, ToolSource
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import FailedPrecondition

if TYPE_CHECKING:
    from stationmaster_server.agents.runtimes.offer import Offer

_MAX_OFFERS = 1_000


@dataclass(frozen=True, slots=True)
class ModelRuntimeSettings:
    """How long a tool may take, how patient the loop is, and how many model clients are kept for how long."""

    tool_deadline: timedelta = timedelta(minutes=2)
    retries: Retries = field(default_factory=Retries)
    max_clients: int = 64
    idle_client: timedelta = timedelta(minutes=10)


class ModelRuntime:
    """Runs turns on any model that the providers reach."""

    def __init__(
        self, providers: Providers, source: ToolSource, prices: Prices, settings: ModelRuntimeSettings | None = None
    ) -> None:
        self._settings = settings or ModelRuntimeSettings()
        self._providers = providers
        self._source = source
        self._prices = prices
        self._offers: dict[Hashable, Offer] = {}
        self._clients: Executors[str, ModelClient] = Executors(
            self._make, ModelClient.close, most=self._settings.max_clients, idle=self._settings.idle_client
        )

    @property
    def counters(self) -> Counters:
        """Hits, misses and evictions of the model clients."""
        return self._clients.counters

    async def run(self, turn: TurnInput) -> AsyncGenerator[TurnEvent, None]:
        """See `Runtime.run`."""
        offered = await self._source.of(Tenant(turn.organization_id, turn.user_id), turn.spec)
        for notice in offered.notices:
            yield notice
        client = await self._acquire(turn.spec.model)
        try:
            from stationmaster_server.agents.runtimes.loop import TurnLoop

            loop = TurnLoop(
                turn,
                client,
                self._offer(offered),
                self._prices,
                retries=self._settings.retries,
                tool_deadline=self._settings.tool_deadline,
            )
            async with aclosing(loop.run()) as events:
                async for event in events:
                    yield event
        finally:
            await self._clients.release(turn.spec.model, client)

    async def warm(self, model_id: str = "demo") -> None:
        """Imports what the first turn needs, in a thread, and keeps a client of this model."""
        await self._clients.release(model_id, await self._acquire(model_id))

    async def evict_idle(self) -> int:
        """Closes the model clients that nobody has used for a while; returns how many."""
        return await self._clients.evict_idle()

    async def close_session(self, session_id: UUID) -> None:
        """Nothing is kept for a session: a client belongs to a model and knows of no conversation."""

    async def close(self) -> None:
        """Closes every client."""
        await self._clients.close()

    def _offer(self, offered: Offered) -> Offer:
        key = (offered.key, tuple(offered.missing.items()))
        offer = self._offers.get(key)
        if offer is None:
            from stationmaster_server.agents.runtimes.offer import make_offer

            if len(self._offers) >= _MAX_OFFERS:
                self._offers.clear()
            offer = self._offers[key] = make_offer(offered)
        return offer

    async def _acquire(self, model_id: str) -> ModelClient:
        try:
            return await self._clients.acquire(model_id)
        except FailedPrecondition as error:
            raise RuntimeFailure(error.reason, error.message) from None

    def _make(self, model_id: str) -> ModelClient:
        # In a thread, so that the import does not hold up the event loop.
        import stationmaster_server.agents.runtimes.loop  # noqa: F401

        return self._providers.make(model_id)
