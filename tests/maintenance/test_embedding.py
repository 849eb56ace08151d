"""Of servers with different encoders none undoes what another does."""

from __future__ import annotations

from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.maintenance.registry import Registry
from stationmaster_server.maintenance.services.embedding import alone
from stationmaster_server.telemetry.metrics import Metrics

from tests.maintenance.conftest import NotedAlarms


def server(database: Database, encoder: str) -> Registry:
    """What a server with this encoder has of background services: none."""
    return Registry(database, Listener(database), Metrics(), NotedAlarms(database), "1.0", dict, encoder=encoder)


async def test_others_vectors_are_replaced_when_no_server_has_their_encoder(database: Database) -> None:
    async with server(database, "new"), server(database, "new"):
        assert await alone(database, "new")
        async with server(database, "old"):
            assert not await alone(database, "new")
            assert not await alone(database, "old")
        assert await alone(database, "new")
