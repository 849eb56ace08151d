"""The echo service, served."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.rpc.echo import EchoStub
from tests.rpc.served import Served, serving


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    """The echo service with default settings."""
    async with serving() as it:
        yield it


@pytest_asyncio.fixture
async def stub(served: Served) -> AsyncIterator[EchoStub]:
    """A stub of it."""
    async with served.stub() as it:
        yield it
