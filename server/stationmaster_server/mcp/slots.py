"""Who uses which server, and the places where connections come and go."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import Reason
from stationmaster_server.mcp.faults import Ended
from stationmaster_server.mcp.model import BuiltIn, Level, McpServer
from stationmaster_server.mcp.telling import Teller
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker

if TYPE_CHECKING:
    from stationmaster_server.mcp.connection import Connection

_MOST_BREAKERS = 10_000


@dataclass(frozen=True, slots=True)
class Target:
    """One server as one tenant uses it.

    Calls of one tenant, server and etag share a connection; with `session_id` it has one of its own.
    """

    tenant: Tenant
    server: McpServer
    session_id: UUID | None = None


Key = tuple[Tenant, Level, str, UUID | None, str, UUID | None]


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    opened: int = 0
    failed: int = 0
    evicted: int = 0
    lost: int = 0
    calls: int = 0
    errors: int = 0


@dataclass(slots=True)
class Listed:
    """A list as it was, of which connection and which of its changes."""

    items: tuple[Any, ...]
    is_cut: bool
    connection: Connection
    change: int


class Slot:
    """The place of a connection: it stays while connections come and go."""

    def __init__(self, target: Target, breaker: CircuitBreaker) -> None:
        self.target = target
        self.breaker = breaker
        self.connection: Connection | None = None
        self.connecting: asyncio.Task[Connection] | None = None
        self.pinging: asyncio.Task[bool] | None = None
        self.lists: dict[str, Listed] = {}
        self.listing = {kind: asyncio.Lock() for kind in ("tools", "resources", "prompts")}
        self.users = 0
        self.is_dropped = False
        """Nobody else finds it: its connection ends with its last user."""


class Breakers:
    """One circuit breaker for each server and etag: a changed configuration is tried at once."""

    def __init__(self) -> None:
        self._breakers: OrderedDict[tuple[object, ...], CircuitBreaker] = OrderedDict()

    def of(self, target: Target) -> CircuitBreaker:
        """The breaker of a server."""
        server = target.server
        owner = target.tenant if server.level is Level.USER else target.tenant.organization_id
        key = (owner, server.level, server.server_id, server.uid, server.etag)
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = CircuitBreaker(
                f"MCP server {server.server_id!r}",
                failures=1_000_000_000 if isinstance(server.transport, BuiltIn) else 3,
                pause=timedelta(seconds=2),
                longest_pause=timedelta(minutes=2),
                reason=Reason.MCP_SERVER_UNAVAILABLE,
                counts=lambda error: isinstance(error, Ended),
                told=Teller(server).why,
            )
        self._breakers.move_to_end(key)
        while len(self._breakers) > _MOST_BREAKERS:
            self._breakers.popitem(last=False)
        return breaker
