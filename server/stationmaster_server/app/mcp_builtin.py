"""The built-in MCP servers, built: those that the settings ask for."""

from __future__ import annotations

from stationmaster_server.config.mcp_builtin import McpDatabaseSettings, McpKubernetesSettings, McpMonitoringSettings
from stationmaster_server.db.engine import Database
from stationmaster_server.mcp.builtin.catalogue import Catalogue, database_entry, kubernetes_entry, monitoring_entry
from stationmaster_server.mcp.builtin.figures import HealthFigures
from stationmaster_server.rpc.health import SERVING, HealthBoard
from stationmaster_server.sessions.summary_store import summary
from stationmaster_server.telemetry.metrics import Metrics


def build_builtin(
    sql: McpDatabaseSettings,
    monitoring: McpMonitoringSettings,
    kubernetes: McpKubernetesSettings,
    *,
    database: Database,
    metrics: Metrics,
    board: HealthBoard,
) -> Catalogue:
    """The catalogue; close it when the connections to MCP servers are closed."""

    def health() -> HealthFigures:
        services = {name: status == SERVING for name, status in board.all().items()}
        return HealthFigures(services, board.missing)

    entries = (
        database_entry(sql),
        monitoring_entry(database, metrics.registry, health, summary) if monitoring.enabled else None,
        kubernetes_entry(kubernetes),
    )
    return Catalogue(entry for entry in entries if entry is not None)
