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
from stationmaster_server.agents.keys import ModelKeys
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


@dataclass(frozen=True, slots=True)
class _Reached:
    """A model, and the key that it is reached with, where that is not this server's own."""

    model_id: str
    own_key: str = field(default="", repr=False)


class ModelRuntime:
    """Runs turns on any model that the providers reach."""

    def __init__(
        self,
        providers: Providers,
        source: ToolSource,
        prices: Prices,
        settings: ModelRuntimeSettings | None = None,
        keys: ModelKeys | None = None,
    ) -> None:
        self._settings = settings or ModelRuntimeSettings()
        self._providers = providers
        self._source = source
        self._prices = prices
        self._keys = keys
        self._offers: dict[Hashable, Offer] = {}
        self._clients: Executors[_Reached, ModelClient] = Executors(
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
        reached = _Reached(turn.spec.model, await self._own_key(turn))
        client = await self._acquire(reached)
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
            await self._clients.release(reached, client)

    async def warm(self, model_id: str = "demo") -> None:
        """Imports what the first turn needs, in a thread, and keeps a client of this model."""
        reached = _Reached(model_id)
        await self._clients.release(reached, await self._acquire(reached))

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

    async def _own_key(self, turn: TurnInput) -> str:
        """The key that the specification names; empty: this server's."""
        return await self._keys.of(turn) if self._keys is not None else ""

    async def _acquire(self, reached: _Reached) -> ModelClient:
        try:
            return await self._clients.acquire(reached)
        except FailedPrecondition as error:
            raise RuntimeFailure(error.reason, error.message) from None

    def _make(self, reached: _Reached) -> ModelClient:
        # In a thread, so that the import does not hold up the event loop.
        import stationmaster_server.agents.runtimes.loop  # noqa: F401

        return self._providers.make(reached.model_id, reached.own_key)
