"""The runtime `claude` with tools of MCP servers: the same names, permissions and results."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest_asyncio
from stationmaster_server.agents.model import AgentSpec, Effect
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.providers import Protocol, Providers, ProviderSettings
from stationmaster_server.agents.runtime import McpMessage, Ruling, ToolCall, ToolsCompleted
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime, ClaudeRuntimeSettings
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.agents.tools.mcp import McpTools
from stationmaster_server.agents.tools.source import ToolSource
from stationmaster_server.db.engine import Database
from stationmaster_server.mcp.model import Level, McpServer, Stdio
from stationmaster_server.mcp.registry import Registry

from tests.agents.claude.conftest import KEY
from tests.agents.claude.conversation import MODEL, command_lines, next_turn, taken_up
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import StandIn
from tests.agents.turns import FAST, asked, by_default, last_text, one, run, turn
from tests.mcp import modern
from tests.mcp.connected import connections

ADD = "mcp__stationmaster__board_add"
SPEC = AgentSpec(MODEL, tools=("files.*",), mcp_servers=("board", "nobody"))


@pytest_asyncio.fixture
async def runtime(provider: StandIn, database: Database, tmp_path: Path) -> AsyncIterator[ClaudeRuntime]:
    """A runtime whose turns may name the server `board`."""
    board = McpServer("board", Level.BUILT_IN, Stdio(sys.executable, (modern.PROGRAM, "stdio")))
    prices = Prices()
    providers = Providers([ProviderSettings("anthropic", Protocol.ANTHROPIC, KEY, provider.url)], prices)
    settings = ClaudeRuntimeSettings(tmp_path / "claude", 4, timedelta(minutes=5), retries=FAST)
    async with connections() as pool:
        source = ToolSource(builtin_toolbox(), McpTools(Registry(database, lambda _: {"board": board}), pool))
        made = ClaudeRuntime(database, providers, source, prices, settings)
        yield made
        await made.close()


async def test_a_tool_of_a_server_is_offered_and_run_by_one_process_over_turns(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(
        anthropic.answer(anthropic.tool(ADD, {"a": 40, "b": 2}, "toolu_1")),
        anthropic.answer(anthropic.text("It is 42.")),
        anthropic.answer(anthropic.text("You are welcome.")),
    )
    begun = turn("add", spec=SPEC, workspace=tmp_path)
    events = await run(runtime, begun)
    (result,) = one(ToolsCompleted, events).results
    assert (result.tool, result.content, result.is_error) == ("board.add", "42", False)
    assert last_text(events) == "It is 42."
    assert one(McpMessage, events).server == "nobody"
    offered = next(tool for tool in provider.requests[0].body["tools"] if tool["name"] == ADD)
    assert "MCP server 'board'" in offered["description"]
    (process,) = command_lines(begun.session_id)
    assert last_text(await run(runtime, next_turn(begun, events, "thanks"))) == "You are welcome."
    assert command_lines(begun.session_id) == [process]


async def test_a_tool_of_a_server_asks_and_edited_arguments_are_checked_against_its_schema(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(anthropic.answer(anthropic.tool(ADD, {"a": 1, "b": 1}, "toolu_1")))
    begun = turn("add", spec=SPEC, workspace=tmp_path, rulings=by_default)
    events = await run(runtime, begun)
    assert [call.tool for call in asked(events)] == ["board.add"]

    def edited(call: ToolCall, default: Effect) -> Ruling:
        return Ruling(Effect.ALLOW, arguments={"a": 1, "b": "two"})

    provider.reply(anthropic.answer(anthropic.text("Then not.")))
    after = await run(runtime, taken_up(begun, events, rulings=edited))
    (result,) = one(ToolsCompleted, after).results
    assert result.is_error
    assert "arguments.b" in result.content
    assert last_text(after) == "Then not."
