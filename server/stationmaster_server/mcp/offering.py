"""Tools as an MCP server in this process, for a client that takes one as an object of the library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp.server import Server
from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool: its name, what it does, the JSON schema of its arguments, and what the client reads besides."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call comes to, for a model."""

    text: str
    is_error: bool


Call = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Awaitable[Reply]]
"""Runs a tool: by its name, with its arguments, and with what the client says of the call."""


def tool_server(name: str, offered: Iterable[OfferedTool], call: Call) -> Server[Any]:
    """A server with these tools."""
    tools = [
        Tool.model_validate(
            {
                "name": tool.name,
                "description": tool.description,
                "inputSchema": dict(tool.parameters),
                "_meta": dict(tool.meta),
            }
        )
        for tool in offered
    ]

    async def list_tools(context: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call_tool(context: Any, params: Any) -> CallToolResult:
        reply = await call(params.name, params.arguments or {}, params.meta or {})
        return CallToolResult(content=[TextContent(type="text", text=reply.text)], is_error=reply.is_error)

    return Server(name, on_list_tools=list_tools, on_call_tool=call_tool)
