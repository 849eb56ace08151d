"""The client's part for MCP servers, against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from stationmaster.v1 import mcp_pb2
from stationmaster_client import Client, SyncClient, errors

from tests.contract.world import MCP_SERVER
from tests.fixtures.server import RunningServer
from tests.mcp.served import unruly


@pytest_asyncio.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    async with Client.connect(server.target, server.admin_key) as made:
        yield made


async def test_a_server_is_registered_changed_checked_and_deleted(client: Client) -> None:
    organization = mcp_pb2.MCP_LEVEL_ORGANIZATION
    theirs = mcp_pb2.McpServer(stdio=MCP_SERVER, display_name="theirs", level=organization)
    mine = mcp_pb2.McpServer(stdio=MCP_SERVER, display_name="mine")
    await client.mcp.register("orderly", theirs)
    made = await client.mcp.register("orderly", mine)
    assert [server.name async for server in client.mcp.list(filter="level = USER")] == ["mcpServers/orderly"]
    hidden = [
        server.level async for server in client.mcp.list(show_hidden=True, page_size=1) if server.name == made.name
    ]
    assert sorted(hidden) == [organization, mcp_pb2.MCP_LEVEL_USER]
    assert (await client.mcp.get("orderly", level=organization)).display_name == "theirs"
    made.display_name = "changed"
    assert (await client.mcp.update(made, ["display_name"])).display_name == "changed"
    with pytest.raises(errors.Aborted) as stale:
        await client.mcp.update(made, ["display_name"])
    assert stale.value.reason == "ETAG_MISMATCH"
    checked = await client.mcp.check("orderly")
    assert (checked.healthy, checked.info.name, checked.tools) == (True, "orderly", 3)
    await client.mcp.delete("orderly")
    assert (await client.mcp.get("orderly")).display_name == "theirs"
    await client.mcp.delete(made.name, level=organization)
    with pytest.raises(errors.NotFound):
        await client.mcp.get("orderly")


@pytest.mark.parametrize("over", ["server", "session"])
async def test_tools_resources_and_prompts_are_used(client: Client, over: str) -> None:
    await client.mcp.register("orderly", mcp_pb2.McpServer(stdio=MCP_SERVER))
    parent = "orderly" if over == "server" else (await client.mcp.open_session("orderly")).name
    assert [tool.tool async for tool in client.mcp.tools(parent, page_size=2)] == ["add", "echo", "fail"]
    assert [tool.tool async for tool in client.mcp.tools(parent, filter="a*")] == ["add"]
    assert (await client.mcp.call(parent, "add", {"a": 2, "b": 3})).content[0].text == "5"
    assert (await client.mcp.call(parent, "fail")).is_error
    with pytest.raises(errors.InvalidArgument):
        await client.mcp.call(parent, "add", {"a": 2})
    assert [one.uri async for one in client.mcp.resources(parent, filter="*two")] == ["orderly://two"]
    assert (await client.mcp.read(parent, "orderly://two")).contents[0].resource.text == "a resource"
    assert [one.prompt async for one in client.mcp.prompts(parent, page_size=1)] == ["greet", "part"]
    assert (await client.mcp.prompt(parent, "part")).messages[0].content.text == "part somebody"


async def test_sessions_are_opened_listed_and_closed(client: Client) -> None:
    await client.mcp.register("orderly", mcp_pb2.McpServer(stdio=MCP_SERVER))
    opened = await client.mcp.open_session("orderly", idle_timeout=timedelta(hours=1))
    assert opened.idle_timeout.seconds == 3600
    assert [session.name async for session in client.mcp.sessions(filter="state = OPEN")] == [opened.name]
    closed = await client.mcp.close_session(opened.name.removeprefix("mcpSessions/"))
    assert (await client.mcp.get_session(opened.name)) == closed
    with pytest.raises(errors.FailedPrecondition) as used:
        await client.mcp.call(opened.name, "echo")
    assert used.value.reason == "MCP_SESSION_CLOSED"


async def test_a_call_has_the_limit_that_it_is_given(server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key, timeout=timedelta(hours=1)) as client:
        await client.mcp.register("unruly", mcp_pb2.McpServer(stdio=unruly()))
        with pytest.raises(errors.DeadlineExceeded):
            await client.mcp.call("unruly", "hang", timeout=timedelta(seconds=1))


async def test_the_same_through_blocking_calls(server: RunningServer) -> None:
    def use() -> None:
        with SyncClient.connect(server.target, server.admin_key) as client:
            client.mcp.register("orderly", mcp_pb2.McpServer(stdio=MCP_SERVER))
            assert [tool.tool for tool in client.mcp.tools("orderly")] == ["add", "echo", "fail"]
            session = client.mcp.open_session("orderly")
            assert client.mcp.call(session.name, "add", {"a": 2, "b": 3}).content[0].text == "5"

    await asyncio.to_thread(use)
