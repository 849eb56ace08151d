"""Tools of MCP servers as agents have them: their names, effects, arguments and answers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from stationmaster_server.agents.model import AgentSpec, Effect
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.agents.tools.mcp import McpTool, McpTools, text_of
from stationmaster_server.agents.tools.source import ToolSource
from stationmaster_server.agents.tools.tool import ToolContext, ToolError
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.mcp.connections import Connections
from stationmaster_server.mcp.model import (
    BlobContent,
    CallResult,
    Content,
    Level,
    McpServer,
    ResourceContent,
    Stdio,
    TextContent,
    Tool,
)
from stationmaster_server.mcp.registry import Registry

from tests.mcp import modern
from tests.mcp.connected import connections

MODERN = Stdio(sys.executable, (modern.PROGRAM, "stdio"))


def server(server_id: str = "board", **fields: Any) -> McpServer:
    """A server of this installation's."""
    return McpServer(server_id, Level.BUILT_IN, MODERN, connect_timeout=timedelta(seconds=60), **fields)


class Servers:
    """Real servers, reached by real connections; `these` are the ones that there are."""

    def __init__(self, database: Database, pool: Connections) -> None:
        self.these: dict[str, McpServer] = {}
        self.tools = McpTools(Registry(database, lambda organization: self.these), pool)

    def add(self, *servers: McpServer) -> None:
        """There are these servers, too."""
        self.these |= {one.server_id: one for one in servers}


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Connections]:
    async with connections() as made:
        yield made


@pytest.fixture
def servers(database: Database, pool: Connections) -> Servers:
    return Servers(database, pool)


def context(tenant: Tenant) -> ToolContext:
    """Where a call runs."""
    return ToolContext(tenant.organization_id, tenant.user_id, uuid4(), uuid4(), "call-1", Path("/nonexistent"))


async def test_its_name_begins_with_its_server_and_its_description_is_told_to_be_a_third_partys(
    servers: Servers, tenant: Tenant
) -> None:
    servers.add(server())
    found = await servers.tools.of(tenant, ["mcpServers/board", "board"], [])
    add = found.tools["board.add"]
    assert add.name == "board.add"
    assert "MCP server 'board'" in add.description
    assert add.description.endswith("Add.")
    assert set(add.parameters["properties"]) == {"a", "b"}
    assert add.deadline > timedelta(minutes=2)  # its connection's own comes first
    assert list(found.tools) == sorted(found.tools)


@pytest.mark.parametrize(
    ("trusted", "read_only", "effect"),
    [
        (True, True, Effect.ALLOW),
        (True, False, Effect.ASK),
        (True, None, Effect.ASK),
        (False, True, Effect.ASK),
    ],
)
def test_it_asks_unless_its_server_is_believed_and_says_that_it_only_reads(
    pool: Connections, trusted: bool, read_only: bool | None, effect: Effect
) -> None:
    one = McpTool(server(trust_annotations=trusted), Tool("look", "Look.", {}, read_only=read_only), pool)
    assert one.effect is effect


async def test_arguments_that_do_not_fit_are_refused_naming_the_place(servers: Servers, tenant: Tenant) -> None:
    servers.add(server())
    add = (await servers.tools.of(tenant, ["board"], [])).tools["board.add"]
    add.check({"a": 1, "b": 2})
    with pytest.raises(ToolError, match=r"arguments\.b"):
        add.check({"a": 1, "b": "two"})


async def test_a_call_answers_and_a_tool_that_fails_says_why(servers: Servers, tenant: Tenant) -> None:
    servers.add(server())
    tools = (await servers.tools.of(tenant, ["board"], [])).tools
    assert await tools["board.add"].run(context(tenant), {"a": 40, "b": 2}) == "42"
    with pytest.raises(ToolError, match="Error executing tool fail"):
        await tools["board.fail"].run(context(tenant), {})


async def test_patterns_choose_of_their_own_server_and_the_server_itself_forbids(
    servers: Servers, tenant: Tenant
) -> None:
    servers.add(server(), server("other", allowed_tools=("add", "steps")))
    found = await servers.tools.of(tenant, ["*"], ["files.*", "board.s*", "board.fail"])
    assert set(found.tools) == {"board.steps", "board.fail", "other.add", "other.steps"}
    assert not found.missing


async def test_a_server_that_is_unknown_or_cannot_be_reached_costs_its_own_tools_only(
    servers: Servers, tenant: Tenant
) -> None:
    dead = McpServer("dead", Level.BUILT_IN, Stdio(sys.executable, ("-c", "raise SystemExit('no configuration')")))
    servers.add(server(), server("off", disabled=True), dead)
    found = await servers.tools.of(tenant, ["nobody", "off", "dead", "board"], [])
    assert "board.add" in found.tools
    assert set(found.missing) == {"nobody", "off", "dead"}
    assert "not registered" in found.missing["nobody"]
    assert "disabled" in found.missing["off"]
    assert "no configuration" in found.missing["dead"]


async def test_equal_tools_have_an_equal_key_until_the_servers_list_changes(servers: Servers, tenant: Tenant) -> None:
    servers.add(server())
    source = ToolSource(builtin_toolbox(), servers.tools)
    spec = AgentSpec("demo", tools=("files.*",), mcp_servers=("board",))
    first, again = await source.of(tenant, spec), await source.of(tenant, spec)
    assert first.key == again.key
    assert {"files.read", "board.add"} <= set(first.tools)
    await first.tools["board.grow"].run(context(tenant), {"name": "more"})
    grown = await source.of(tenant, spec)
    assert "board.more" in grown.tools
    assert grown.key != first.key


async def test_a_turn_that_names_no_server_waits_for_nothing_and_has_what_is_kept(
    servers: Servers, tenant: Tenant
) -> None:
    source, spec = ToolSource(builtin_toolbox(), servers.tools), AgentSpec("demo", tools=("math.*",))
    kept = await source.of(tenant, spec)
    with pytest.raises(StopIteration) as ended:
        source.of(tenant, spec).send(None)  # it would yield here if it waited
    assert ended.value.value is kept


@pytest.mark.parametrize(
    ("content", "structured", "text"),
    [
        ((TextContent("one"), TextContent("two")), {"a": 1}, "one\ntwo"),
        ((), {"ü": [1, None]}, '{"ü": [1, null]}'),
        ((BlobContent("image", b"12345", "image/png"),), None, "[image, image/png, 5 bytes]"),
        ((BlobContent("audio", b"", "audio/wav"),), {"a": 1}, '[audio, audio/wav, 0 bytes]\n{"a": 1}'),
        ((ResourceContent("file:///a", mime_type="text/plain", text="inside"),), None, "inside"),
        ((ResourceContent("file:///a", mime_type="a/b", blob=b"123"),), None, "[resource file:///a, a/b, 3 bytes]"),
        ((ResourceContent("file:///a"),), None, "[resource file:///a]"),
        ((), None, ""),
    ],
)
def test_an_answer_becomes_text(content: tuple[Content, ...], structured: dict[str, Any] | None, text: str) -> None:
    assert text_of(CallResult(content, structured)) == text


def test_an_answer_that_was_too_large_says_so() -> None:
    cut = text_of(CallResult((TextContent("begun"),), truncated=True))
    assert cut.startswith("begun\n")
    assert "too large" in cut
