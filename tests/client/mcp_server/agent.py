"""The command `stationmaster mcp`, run as a program, with MCP clients of its own library."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import mcp
from mcp.client.streamable_http import streamable_http_client
from stationmaster.v1 import identity_pb2
from stationmaster_client import Client

from tests.client.cli.program import Program
from tests.fixtures.forks import COMMAND_LINE, Streams, fork
from tests.fixtures.server import RunningServer
from tests.waiting import until

LIMIT_SECONDS = 60


@dataclass
class Agent:
    """Another agent: what it does by tools."""

    mcp: mcp.Client
    progress: list[str]

    async def __call__(self, tool: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
        """The text and the fields of a tool's answer, which is no error."""
        result = await self.raw(tool, **arguments)
        assert not result.is_error, result.content
        assert result.structured_content is not None
        return text_of(result), result.structured_content

    async def error(self, tool: str, **arguments: Any) -> str:
        """The text of a tool's error."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, result.content
        return text_of(result)

    async def raw(self, tool: str, **arguments: Any) -> Any:
        """The answer as it came."""

        async def note(progress: float, total: float | None, message: str | None) -> None:
            self.progress.append(message or "")

        return await self.mcp.call_tool(tool, arguments, progress_callback=note)


def text_of(result: Any) -> str:
    """The text of an answer."""
    return "\n".join(part.text for part in result.content)


@asynccontextmanager
async def over_stdio(program: Program, mode: str = "auto") -> AsyncIterator[Agent]:
    """An agent that started the command itself."""
    command = mcp.StdioServerParameters(
        command=sys.executable, args=["-m", "stationmaster_client.cli.main", "mcp"], env=program.environment()
    )
    async with mcp.Client(command, mode=mode, read_timeout_seconds=LIMIT_SECONDS) as client:
        yield Agent(client, [])


@asynccontextmanager
async def over_http(url: str, key: str | None, mode: str = "auto") -> AsyncIterator[Agent]:
    """An agent somewhere else, with a key."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx2.AsyncClient(headers=headers, timeout=LIMIT_SECONDS, trust_env=False) as http:
        transport = streamable_http_client(url, http_client=http)
        async with mcp.Client(transport, mode=mode, read_timeout_seconds=LIMIT_SECONDS) as client:
            yield Agent(client, [])


@asynccontextmanager
async def kept(connection: AbstractAsyncContextManager[Agent]) -> AsyncIterator[Agent]:
    """A connection that is opened and closed by one task, as its library needs and fixtures do not grant."""
    opened: asyncio.Future[Agent] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def keep() -> None:
        async with connection as agent:
            opened.set_result(agent)
            await done.wait()

    def broken(task: asyncio.Task[None]) -> None:
        if not opened.done():
            opened.set_exception(task.exception() or EOFError())

    keeper = asyncio.create_task(keep())
    keeper.add_done_callback(broken)
    try:
        yield await opened
    finally:
        done.set()
        await keeper


@asynccontextmanager
async def serving(program: Program, *options: str) -> AsyncIterator[str]:
    """The URL of the command as an HTTP server."""
    said = program.home / f"mcp-{uuid4().hex}.log"
    said.touch()
    process = fork(COMMAND_LINE, ("mcp", "--http", "--port", "0", *options), program.environment(), Streams(said, said))

    async def has_spoken() -> bool:
        return "\n" in said.read_text() or process.returncode is not None

    try:
        await until(has_spoken, seconds=LIMIT_SECONDS)
        found = re.search(r"https?://\S+/mcp", said.read_text())
        assert found, said.read_text()
        yield found[0]
    finally:
        process.terminate()
        await process.wait()


async def stranger(server: RunningServer) -> str:
    """The key of the owner of another organization."""
    async with Client.connect(server.target, server.admin_key) as client:
        elsewhere = await client.organizations.create("Elsewhere", owner_display_name="First")
        user = await client.users.create("Stranger", identity_pb2.ROLE_OWNER, organization=elsewhere.name)
        return (await client.keys.create("mcp", user=user.name)).secret


async def colleague(server: RunningServer, *scopes: str) -> str:
    """The key of another user of the same organization."""
    async with Client.connect(server.target, server.admin_key) as client:
        user = await client.users.create("Colleague", identity_pb2.ROLE_MEMBER)
        return (await client.keys.create("mcp", user=user.name, scopes=scopes)).secret
