"""The room on a fresh database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant

from tests.credentials.room import Room, caller_of, file_keys, make_room


@pytest_asyncio.fixture
async def room(database: Database, tmp_path: Path) -> AsyncIterator[Room]:
    """The room of a server that made its key at its first start."""
    made = await make_room(database, file_keys(tmp_path))
    assert not made.keyring.problem
    yield made
    await made.close()


@pytest.fixture
def owner(tenant: Tenant) -> Caller:
    """The owner of the organization, who operates the installation as well."""
    return caller_of(tenant, operator=True)
