"""Who calls: on a server of each test, or on one that the tests of a module share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from stationmaster.v1 import session_pb2
from stationmaster_server.db.embedded.cluster import Cluster

from tests.contract.world import Caller, connect, furnish, settle
from tests.fixtures.database import fresh_database
from tests.fixtures.server import RunningServer, running, server_settings
from tests.promises.valid import BY_NAME, invoke, request_for


@pytest_asyncio.fixture
async def operator(server: RunningServer) -> AsyncIterator[Caller]:
    """Whoever runs the installation: the owner of its first organization."""
    async with connect(server.target, server.admin_key) as caller:
        yield caller


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningServer]:
    """A server for all tests of a module, which must not get into each other's way."""
    folder = tmp_path_factory.mktemp("shared") / "data"
    quick = {"shutdown_grace": "0.2s"}  # turns that are still under way are nobody's
    async with fresh_database(postgres) as url, running(server_settings(folder, url, server=quick)) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owner(shared: RunningServer) -> AsyncIterator[Caller]:
    """The operator of the shared server, who has two at least of everything that is listed."""
    async with connect(shared.target, shared.admin_key) as caller:
        await settle(caller, "Another")
        await furnish(caller, shared.app.database_url)
        await furnish(caller, shared.app.database_url)
        again = session_pb2.SendMessageRequest(session=caller.names["stationmaster.dev/Session"], text="again")
        await caller.call(BY_NAME["SendMessage"], again, enough=1)
        talk = await invoke(caller, "CreateSession", await request_for(caller, BY_NAME["CreateSession"]))
        for text in ("papaya", "another papaya"):
            said = session_pb2.SendMessageRequest(session=talk.name, text=text)
            await caller.call(BY_NAME["SendMessage"], said, enough=1_000_000)
        yield caller
