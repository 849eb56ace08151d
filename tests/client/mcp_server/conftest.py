"""The command `stationmaster mcp`, over each transport, against a server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.client.cli.program import Program
from tests.client.mcp_server.agent import Agent, kept, over_http, over_stdio, serving
from tests.fixtures.server import RunningServer


@pytest.fixture
def program(server: RunningServer, tmp_path: Path) -> Program:
    """The command line, with the administrator's key at hand: over HTTP it must help nobody."""
    return Program(tmp_path, server.target, server.admin_key)


@pytest_asyncio.fixture
async def url(program: Program) -> AsyncIterator[str]:
    """Where the command serves HTTP."""
    async with serving(program) as found:
        yield found


@pytest_asyncio.fixture(params=["stdio", "http", "http, protocol of 2025"])
async def agent(request: pytest.FixtureRequest, program: Program, server: RunningServer) -> AsyncIterator[Agent]:
    """An agent that is connected, over each transport."""
    if request.param == "stdio":
        async with kept(over_stdio(program)) as connected:
            yield connected
        return
    mode = "auto" if request.param == "http" else "legacy"
    async with serving(program) as found, kept(over_http(found, server.admin_key, mode)) as connected:
        yield connected


@pytest_asyncio.fixture
async def local(program: Program) -> AsyncIterator[Agent]:
    """An agent over stdio, for what does not depend on the transport."""
    async with kept(over_stdio(program)) as connected:
        yield connected
