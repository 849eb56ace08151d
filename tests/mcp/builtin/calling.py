"""Calling built-in servers through a real client."""

from __future__ import annotations

from typing import Any

from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, TextContent


async def call(server: MCPServer, tool: str, **arguments: Any) -> CallToolResult:
    """What a tool answers."""
    async with Client(server) as client:
        result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    return result


async def answer(server: MCPServer, tool: str, **arguments: Any) -> Any:
    """The structured content of an answer that is no error."""
    result = await call(server, tool, **arguments)
    assert not result.is_error, text_of(result)
    return result.structured_content


async def refusal(server: MCPServer, tool: str, **arguments: Any) -> str:
    """The text of a tool error."""
    result = await call(server, tool, **arguments)
    assert result.is_error, text_of(result)
    return text_of(result)


def text_of(result: CallToolResult) -> str:
    """All text of an answer."""
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))
