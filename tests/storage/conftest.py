"""Workspaces on a real server, in every place where files can be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from stationmaster.v1 import identity_pb2
from stationmaster.v1.identity_pb2_grpc import IdentityServiceStub

from tests.fixtures.server import RunningServer, running, server_settings
from tests.storage.desk import Desk
from tests.storage.places import LocalSite, Site


@pytest.fixture
def storage_settings() -> dict[str, Any]:
    """Settings of storage beside where files are; a module may have its own."""
    return {}


@pytest.fixture(params=["local"])
def place(request: pytest.FixtureRequest) -> str:
    """The kind of place where files are; a test that is of one kind only says so."""
    return str(request.param)


@pytest_asyncio.fixture
async def site(place: str, tmp_path: Path) -> Site:
    """Where files are."""
    return LocalSite(tmp_path / "data" / "workspaces")


@pytest_asyncio.fixture
async def process_site(place: str, data_folder: Path) -> Site:
    """Where the files of a server are that is a process of its own."""
    return LocalSite(data_folder / "workspaces")


@pytest_asyncio.fixture
async def stored_at(
    site: Site, database_url: str, tmp_path: Path, storage_settings: dict[str, Any]
) -> AsyncIterator[RunningServer]:
    """A server that keeps files there."""
    settings = server_settings(tmp_path / "data", database_url, storage=storage_settings)
    async with running(settings) as server:
        yield server


@pytest_asyncio.fixture
async def admin(stored_at: RunningServer) -> AsyncIterator[grpc.aio.Channel]:
    """The administrator's channel."""
    async with stored_at.channel() as channel:
        yield channel


@pytest_asyncio.fixture
async def desk(admin: grpc.aio.Channel) -> Desk:
    """A workspace of the administrator's."""
    return await Desk.open(admin)


@pytest_asyncio.fixture
async def myself(admin: grpc.aio.Channel) -> tuple[str, str]:
    """The administrator, and the organization."""
    identity: Any = IdentityServiceStub(admin)
    who = await identity.WhoAmI(identity_pb2.WhoAmIRequest())
    return who.user.name, who.organization.name
