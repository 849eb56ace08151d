"""Two organizations that have one of everything, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.contract.world import Caller, connect, furnish, settle
from tests.fixtures.server import RunningServer


@pytest_asyncio.fixture
async def operator(server: RunningServer) -> AsyncIterator[Caller]:
    """Whoever runs the installation."""
    async with connect(server.target, server.admin_key) as caller:
        yield caller


@pytest_asyncio.fixture
async def mallory(server: RunningServer, operator: Caller) -> AsyncIterator[Caller]:
    """The owner of an organization, who wants to see another's."""
    async with connect(server.target, await settle(operator, "Mallory's")) as caller:
        await furnish(caller, server.app.database_url)
        yield caller


@pytest_asyncio.fixture
async def victim(server: RunningServer, operator: Caller) -> AsyncIterator[Caller]:
    """The owner of the other organization."""
    async with connect(server.target, await settle(operator, "Victim's")) as caller:
        await furnish(caller, server.app.database_url)
        yield caller
