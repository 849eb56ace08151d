"""A whole server and its PromptService, as the administrator calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio
from stationmaster.v1.prompt_pb2_grpc import PromptServiceStub

from tests.fixtures.server import RunningServer

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


@pytest_asyncio.fixture
async def prompts(server: RunningServer) -> AsyncIterator[PromptServiceAsyncStub]:
    """PromptService, as the administrator calls it."""
    async with server.channel() as channel:
        yield PromptServiceStub(channel)
