"""A whole server and its PromptService, as the administrator calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio
from stationmaster.v1.prompt_pb2_grpc import PromptServiceStub

from tests.fixtures.server import RunningServer
from tests.prompts.making import create, revise

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


@pytest_asyncio.fixture
async def prompts(server: RunningServer) -> AsyncIterator[PromptServiceAsyncStub]:
    """PromptService, as the administrator calls it."""
    async with server.channel() as channel:
        yield PromptServiceStub(channel)


@pytest_asyncio.fixture
async def tried(prompts: PromptServiceAsyncStub) -> PromptServiceAsyncStub:
    """A prompt with two versions, of which production has the first."""
    await create(prompts, "p", "one", "production")
    await revise(prompts, "p", "two")
    return prompts
