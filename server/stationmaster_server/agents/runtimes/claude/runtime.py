"""The runtime `claude`: the Claude Agent SDK runs its command line once for each session in use.

The SDK is an extra and slow to import: it is imported with the first turn, in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from stationmaster_server.agents.executors import Counters
from stationmaster_server.agents.keys import ModelKeys
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.providers import Providers
from stationmaster_server.agents.runtime import RuntimeFailure, TurnEvent, TurnInput
from stationmaster_server.agents.runtimes.retries import Retries
from stationmaster_server.agents.tools.source import ToolSource
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import FailedPrecondition

if TYPE_CHECKING:
    from stationmaster_server.agents.runtimes.claude.folders import Folder
    from stationmaster_server.agents.runtimes.claude.pool import Pool
    from stationmaster_server.agents.runtimes.claude.relay import Relay


@dataclass(frozen=True, slots=True)
class ClaudeRuntimeSettings:
    """How many command lines there are at most and how long one waits for its session; `folder` is theirs alone."""

    folder: Path
    max_live: int = 16
    idle: timedelta = timedelta(minutes=5)
    tool_deadline: timedelta = timedelta(minutes=2)
    retries: Retries = field(default_factory=Retries)


class ClaudeRuntime:
    """Runs turns on the command line of the Claude Agent SDK."""

    def __init__(
        self,
        database: Database,
        providers: Providers,
        source: ToolSource,
        prices: Prices,
        settings: ClaudeRuntimeSettings,
        keys: ModelKeys | None = None,
    ) -> None:
        self._database = database
        self._providers = providers
        self._source = source
        self._prices = prices
        self._settings = settings
        self._keys = keys
        self._folder: Folder | None = None
        self._made: Pool | None = None
        self._relay: Relay | None = None

    @property
    def counters(self) -> Counters:
        """Starts (misses) and evictions of command lines."""
        return self._made.counters if self._made is not None else Counters()

    @property
    def live(self) -> int:
        """How many command lines there are."""
        return len(self._made) if self._made is not None else 0

    async def run(self, turn: TurnInput) -> AsyncGenerator[TurnEvent, None]:
        """See `Runtime.run`."""
        if self._made is None:
            await asyncio.to_thread(_import)
        from stationmaster_server.agents.runtimes.claude.dialogue import Means
        from stationmaster_server.agents.runtimes.claude.turn import ClaudeTurn

        own_key = await self._keys.of(turn) if self._keys is not None else ""
        try:
            provider, breaker = self._providers.reached(turn.spec.model, own_key)
        except FailedPrecondition as error:
            raise RuntimeFailure(error.reason, error.message) from None
        pool, relay, folder = self._kept()
        means = Means(
            database=self._database,
            pool=pool,
            relay=relay,
            prices=self._prices,
            provider=provider,
            breaker=breaker,
            retries=self._settings.retries,
            tool_deadline=self._settings.tool_deadline,
            folder=folder.path,
        )
        offered = await self._source.of(Tenant(turn.organization_id, turn.user_id), turn.spec)
        for notice in offered.notices:
            yield notice
        run = ClaudeTurn(turn, offered, means)
        async with aclosing(run.run()) as events:
            async for event in events:
                yield event

    async def evict_idle(self) -> int:
        """Ends the command lines that no turn has used for a while; returns how many."""
        return await self._made.evict_idle() if self._made is not None else 0

    async def close_session(self, session_id: UUID) -> None:
        """Ends the session's command line."""
        if self._made is not None:
            await self._made.close_session(session_id)

    def sessions(self) -> list[UUID]:
        """The sessions that have a command line here."""
        return self._made.sessions() if self._made is not None else []

    async def close(self) -> None:
        """Ends every command line."""
        if self._made is not None:
            await self._made.close()
        if self._relay is not None:
            await self._relay.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            await asyncio.to_thread(folder.remove)

    def _kept(self) -> tuple[Pool, Relay, Folder]:
        if self._made is None or self._relay is None or self._folder is None:
            from stationmaster_server.agents.runtimes.claude.folders import Folder
            from stationmaster_server.agents.runtimes.claude.pool import Pool
            from stationmaster_server.agents.runtimes.claude.relay import Relay

            self._folder = Folder(self._settings.folder)
            self._made, self._relay = Pool(self._settings.max_live, self._settings.idle), Relay()
        return self._made, self._relay, self._folder


def lacking() -> str:
    """Why this runtime cannot be had here; empty when it can."""
    return "" if find_spec("claude_agent_sdk") else "it needs: pip install 'stationmaster[server,claude]'"


def _import() -> None:
    import stationmaster_server.agents.runtimes.claude.turn  # noqa: F401
