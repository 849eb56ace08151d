"""Settings of the connections to MCP servers."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.config.mcp_builtin import McpDatabaseSettings, McpKubernetesSettings, McpMonitoringSettings
from stationmaster_server.config.types import Duration, Group, Positive


class McpSettings(Group):
    """Connections to MCP servers."""

    stdio_commands: tuple[str, ...] = ("*",)
    """Patterns (`*`, `?`) of the commands that MCP servers over stdio may run, with the rights of this server."""
    max_connections: Positive = 200
    """Connections to MCP servers that this process holds at most."""
    max_connections_per_user: Positive = 20
    """Of these, how many are for one user."""
    idle_timeout: Duration = timedelta(minutes=5)
    """A connection that nobody used for so long is closed."""
    ping_interval: Duration = timedelta(seconds=30)
    """A connection that was silent for so long is asked whether it lives before it is used again."""
    database: McpDatabaseSettings = McpDatabaseSettings()
    monitoring: McpMonitoringSettings = McpMonitoringSettings()
    kubernetes: McpKubernetesSettings = McpKubernetesSettings()
