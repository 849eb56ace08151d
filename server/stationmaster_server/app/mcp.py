"""The part of MCP, built: built-in servers, connections, the registry, McpService."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.app.mcp_builtin import build_builtin
from stationmaster_server.app.transport import Gate
from stationmaster_server.config import Settings
from stationmaster_server.credentials.using import Using
from stationmaster_server.db.engine import Database
from stationmaster_server.identity.policies import denied
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.maintenance.registry import Registry as Services
from stationmaster_server.mcp.admission import Admission
from stationmaster_server.mcp.calling import McpCalls
from stationmaster_server.mcp.connections import Connections
from stationmaster_server.mcp.registry import Registry
from stationmaster_server.mcp.resolving import Resolving
from stationmaster_server.mcp.service import McpServers
from stationmaster_server.mcp.servicer import McpServicer
from stationmaster_server.mcp.sessions import McpSessions
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.rpc.health import HealthBoard
from stationmaster_server.telemetry.metrics import Metrics
from stationmaster_server.wire.paging import PageTokens


@dataclass(frozen=True, slots=True)
class Mcp:
    """What the rooms above need of MCP, and its servicer."""

    servicer: McpServicer
    registry: Registry
    connections: Connections


def build_mcp(
    stack: AsyncExitStack,
    settings: Settings,
    database: Database,
    gate: Gate,
    outbound: Outbound,
    tokens: PageTokens,
    background: Services,
    metrics: Metrics,
    board: HealthBoard,
    using: Using,
) -> Mcp:
    """Build everything about MCP servers."""
    configured = settings.mcp
    catalogue = build_builtin(
        configured.database,
        configured.monitoring,
        configured.kubernetes,
        database=database,
        metrics=metrics,
        board=board,
    )
    stack.push_async_callback(catalogue.close)
    resolving = Resolving(using)
    connections = Connections(configured, built_in=catalogue.factories, http=outbound.client, resolve=resolving)
    stack.push_async_callback(connections.close)
    registry = Registry(database, catalogue.offered)
    sessions = McpSessions(database, gate.audit, registry, connections)
    admission = Admission(configured.stdio_commands, outbound)
    servers = McpServers(database, gate.audit, registry, connections, admission, resolving)
    calls = McpCalls(database, gate.audit, registry, sessions, connections, denied)
    for routine in _routines(connections, sessions):
        background.add(routine)
    _measure(metrics, connections)
    return Mcp(McpServicer(servers, sessions, calls, tokens), registry, connections)


def _routines(connections: Connections, sessions: McpSessions) -> Iterator[Routine]:
    what = "Closes connections to MCP servers that are idle."
    yield Routine("mcp-connection-eviction", what, timedelta(seconds=30), connections.evict_idle)
    what = "Closes MCP sessions that nobody has used for their idle timeout."
    yield Routine("mcp-session-expiry", what, timedelta(seconds=15), sessions.close_idle)
    what = "Ends the connections of MCP sessions that were closed on another server."
    yield Routine("mcp-session-ending", what, timedelta(seconds=10), sessions.end_closed)
    what = "Forgets MCP sessions that were closed some time ago."
    yield Routine("mcp-session-cleanup", what, timedelta(hours=1), sessions.forget_closed, scope=Scope.ONE_SERVER)


def _measure(metrics: Metrics, connections: Connections) -> None:
    counters = connections.counters
    metrics.read("mcp_connections", "Connections to MCP servers that are open.", lambda: float(connections.open_now))
    metrics.read(
        "mcp_events",
        "What happened to connections to MCP servers, and calls.",
        lambda: {
            "opened": counters.opened,
            "failed": counters.failed,
            "evicted": counters.evicted,
            "lost": counters.lost,
            "call": counters.calls,
            "error": counters.errors,
        },
        label="event",
        total=True,
    )
