"""Who calls."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.contract.world import Caller, connect
from tests.fixtures.server import RunningServer


@pytest_asyncio.fixture
async def operator(server: RunningServer) -> AsyncIterator[Caller]:
    """Whoever runs the installation: the owner of its first organization."""
    async with connect(server.target, server.admin_key) as caller:
        yield caller
