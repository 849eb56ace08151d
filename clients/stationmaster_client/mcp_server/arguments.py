"""Arguments that a tool does not take, told so that a model can mend them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, InputRequiredResult, Tool
from pydantic import ValidationError

from stationmaster_client.mcp_server.answer import cut

_PYDANTIC = re.compile(r"^(Input|String|List|Dictionary|Number) should ")
_MOST_OF_A_VALUE = 60


class ToolServer(MCPServer[Any]):
    """An MCP server that refuses arguments it does not know: left out, they would let a tool do something else."""

    async def list_tools(self) -> list[Tool]:
        """The tools; their schemas say that there are no other arguments."""
        tools = await super().list_tools()
        for tool in tools:
            tool.input_schema["additionalProperties"] = False
        return tools

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool. Raises ToolError that names each argument that is wrong, and those that there are."""
        takes = {tool.name: list(tool.input_schema["properties"]) for tool in await super().list_tools()}
        if name not in takes:
            raise ToolError(f"Unknown tool: {name}{_meant(name, list(takes))}. There are: {', '.join(takes)}")
        wrong = [f"{each}: there is no such argument" for each in arguments if each not in takes[name]]
        try:
            if not wrong:
                return await super().call_tool(name, arguments, context)
            raise ToolError(_told(name, takes[name], wrong))
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            raise ToolError(_told(name, takes[name], list(_in_words(error.__cause__)))) from error.__cause__


def _told(name: str, takes: Sequence[str], wrong: Sequence[str]) -> str:
    """What is wrong, and what there is: an argument that is missing may have been given by another name."""
    there = f"{name} takes {', '.join(takes) or 'no arguments'}"
    return f"Error executing tool {name}: {'; '.join([*wrong, there])}."


def _meant(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _in_words(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        yield f"{'.'.join(map(str, fault['loc']))}: {_of(fault)}"


def _of(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "missing":
        return "is missing"
    return f"{_PYDANTIC.sub('must ', fault['msg'])}, and is {cut(repr(fault['input']), _MOST_OF_A_VALUE)}"
