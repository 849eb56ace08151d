"""Which built-in MCP servers there are, for whom, and how one is made. Imports the library `mcp` with the first one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING
from uuid import UUID

from prometheus_client import CollectorRegistry

from stationmaster_server.config.mcp_builtin import (
    EVERYBODY,
    McpDatabaseSettings,
    McpKubernetesSettings,
    Organizations,
    serves,
)
from stationmaster_server.config.startup import SettingsError
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import NotFound
from stationmaster_server.mcp.builtin.figures import HealthReading, SessionReading
from stationmaster_server.mcp.builtin.readings import Monitoring
from stationmaster_server.mcp.model import BuiltIn, Level, McpServer

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

Factory = Callable[[Tenant], "MCPServer"]
_SLACK = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Entry:
    """A built-in server, those who may use it, how it is made for one of them, and how what they share is closed."""

    server: McpServer
    organizations: Organizations
    make: Factory
    close: Callable[[], Awaitable[None]] | None = None


class Catalogue:
    """The built-in servers of this process."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = {entry.server.server_id: entry for entry in entries}
        self.factories: Mapping[str, Factory] = {name: self._guarded(entry) for name, entry in self._entries.items()}
        """By name; each makes a server for a tenant, and raises NotFound for one that may not use it."""

    def offered(self, organization_id: UUID) -> Mapping[str, McpServer]:
        """Those that an organization may use, by name."""
        entries = self._entries.items()
        return {name: entry.server for name, entry in entries if serves(entry.organizations, organization_id)}

    async def close(self) -> None:
        """Close what the servers share."""
        for entry in self._entries.values():
            if entry.close is not None:
                await entry.close()

    @staticmethod
    def _guarded(entry: Entry) -> Factory:
        def make(tenant: Tenant) -> MCPServer:
            if not serves(entry.organizations, tenant.organization_id):
                raise NotFound("McpServer", f"mcpServers/{entry.server.server_id}")
            return entry.make(tenant)

        return make


def database_entry(settings: McpDatabaseSettings) -> Entry | None:
    """The server `database`, if it is configured."""
    if settings.url is None:
        return None
    from stationmaster_server.mcp.builtin.database_store import ReadOnlyDatabase

    database = ReadOnlyDatabase(settings)

    def make(_: Tenant) -> MCPServer:
        from stationmaster_server.mcp.builtin.database import make_server

        return make_server(database)

    server = _server("database", "Database", "Read-only SQL on the configured PostgreSQL.", settings.query_timeout * 2)
    return Entry(server, settings.organizations, make)


def monitoring_entry(
    database: Database, registry: CollectorRegistry, health: HealthReading, sessions: SessionReading
) -> Entry:
    """The server `monitoring`."""
    monitoring = Monitoring(database, registry, health, sessions)

    def make(tenant: Tenant) -> MCPServer:
        from stationmaster_server.mcp.builtin.monitoring import make_server

        return make_server(monitoring, tenant)

    server = _server("monitoring", "Monitoring", "Health of this server, and the organization's work and sessions.")
    return Entry(server, (EVERYBODY,), make)


def kubernetes_entry(settings: McpKubernetesSettings) -> Entry | None:
    """The server `kubernetes_readonly`, if it is configured. SettingsError when its library is missing."""
    if not settings.organizations:
        return None
    if find_spec("kubernetes") is None:
        raise SettingsError("mcp.kubernetes needs the extra: pip install 'stationmaster[server,kubernetes]'")
    from stationmaster_server.mcp.builtin.cluster import Cluster

    cluster = Cluster(settings)

    def make(_: Tenant) -> MCPServer:
        from stationmaster_server.mcp.builtin.kubernetes_readonly import make_server

        return make_server(cluster)

    server = _server(
        "kubernetes_readonly", "Kubernetes (read only)", "Objects, logs and events of the configured cluster."
    )
    return Entry(server, settings.organizations, make, cluster.close)


def _server(name: str, title: str, description: str, longest_call: timedelta = timedelta(minutes=1)) -> McpServer:
    return McpServer(
        server_id=name,
        level=Level.BUILT_IN,
        transport=BuiltIn(name),
        display_name=title,
        description=description,
        trust_annotations=True,
        call_timeout=longest_call + _SLACK,
        etag="built-in",
    )
