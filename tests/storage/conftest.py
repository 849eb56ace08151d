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
from tests.storage.places import LocalSite, S3Site, Site


@pytest.fixture
def storage_settings() -> dict[str, Any]:
    """Settings of storage beside where files are; a module may have its own."""
    return {}


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """The kind of place where files are; a test that is of one kind only says so."""
    return str(request.param)


@pytest.fixture
def site(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """Where files are."""
    if place == "local":
        return LocalSite(tmp_path / "data" / "workspaces")
    site: S3Site = request.getfixturevalue("bucket")
    return site


@pytest.fixture
def process_site(place: str, data_folder: Path, request: pytest.FixtureRequest) -> Site:
    """Where the files of a server are that is a process of its own."""
    if place == "local":
        return LocalSite(data_folder / "workspaces")
    site: S3Site = request.getfixturevalue("bucket")
    return site


@pytest_asyncio.fixture
async def stored_at(
    site: Site, database_url: str, tmp_path: Path, storage_settings: dict[str, Any]
) -> AsyncIterator[RunningServer]:
    """A server that keeps files there."""
    storage = {**site.settings(), **storage_settings}
    settings = server_settings(tmp_path / "data", database_url, storage=storage)
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
