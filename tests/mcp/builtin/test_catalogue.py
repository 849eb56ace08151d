"""Which built-in servers there are, and for whom."""

from __future__ import annotations

import subprocess
import sys

import pytest
from mcp import Client
from stationmaster_server.app.mcp_builtin import build_builtin
from stationmaster_server.config.mcp_builtin import McpDatabaseSettings, McpKubernetesSettings, McpMonitoringSettings
from stationmaster_server.config.startup import StartupError
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import NotFound
from stationmaster_server.mcp.builtin.catalogue import Catalogue, kubernetes_entry
from stationmaster_server.mcp.model import BuiltIn, Level
from stationmaster_server.rpc.health import HealthBoard
from stationmaster_server.telemetry.metrics import Metrics

from tests.mcp.builtin.calling import answer

NAMED, OTHER = Tenant(new_id(), new_id()), Tenant(new_id(), new_id())


def everything(database: Database, board: HealthBoard | None = None) -> Catalogue:
    """All servers, of which two are for one organization."""
    only = [str(NAMED.organization_id)]
    sql = McpDatabaseSettings.model_validate({"url": "postgresql://reader@127.0.0.1:1/x", "organizations": only})
    cluster = McpKubernetesSettings.model_validate({"organizations": only, "namespaces": ["*"]})
    monitoring = McpMonitoringSettings()
    return build_builtin(sql, monitoring, cluster, database=database, metrics=Metrics(), board=board or HealthBoard())


async def test_what_is_not_configured_does_not_exist(database: Database) -> None:
    nothing = (McpDatabaseSettings(), McpMonitoringSettings(enabled=False), McpKubernetesSettings())
    catalogue = build_builtin(*nothing, database=database, metrics=Metrics(), board=HealthBoard())
    assert catalogue.offered(NAMED.organization_id) == {}
    assert catalogue.factories == {}


async def test_health_is_that_of_the_board(database: Database, tenant: Tenant) -> None:
    board = HealthBoard()
    board.add("stationmaster.v1.SessionService", ("database",))
    server = everything(database, board).factories["monitoring"](tenant)
    assert (await answer(server, "health"))["healthy"]
    board.lose("database", "it is away")
    health = await answer(server, "health")
    assert health["services"]["stationmaster.v1.SessionService"] is False
    assert health["missing"] == {"database": "it is away"}


def test_kubernetes_without_its_library_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    settings = McpKubernetesSettings.model_validate({"organizations": ["*"], "namespaces": ["*"]})
    with pytest.raises(StartupError, match="pip install"):
        kubernetes_entry(settings)


async def test_servers_are_offered_to_the_organizations_that_are_named(database: Database) -> None:
    catalogue = everything(database)
    assert set(catalogue.offered(NAMED.organization_id)) == {"database", "monitoring", "kubernetes_readonly"}
    assert set(catalogue.offered(OTHER.organization_id)) == {"monitoring"}


async def test_server_is_not_made_for_an_organization_that_is_not_named(database: Database) -> None:
    factories = everything(database).factories
    for name in ("database", "kubernetes_readonly"):
        with pytest.raises(NotFound):
            factories[name](OTHER)


async def test_every_offered_server_can_be_made_and_answers(database: Database) -> None:
    catalogue = everything(database)
    for name, server in catalogue.offered(NAMED.organization_id).items():
        assert (server.server_id, server.level, server.transport) == (name, Level.BUILT_IN, BuiltIn(name))
        assert server.trust_annotations
        assert server.display_name
        assert server.description
        assert server.etag
        async with Client(catalogue.factories[name](NAMED)) as client:
            tools = (await client.list_tools()).tools
        assert tools
        assert all(tool.description for tool in tools)
    await catalogue.close()


def test_catalogue_alone_imports_neither_mcp_nor_kubernetes() -> None:
    """Both are slow to import, and a start that uses neither need not wait for them."""
    code = (
        "import sys, stationmaster_server.mcp.builtin.catalogue;"
        "print(sorted({'mcp', 'kubernetes', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
