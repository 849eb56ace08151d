"""Tools of MCP servers, as agents have them: named `{server}.{tool}`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, assert_never

from stationmaster_server.agents.model import Effect
from stationmaster_server.agents.runtime import OURS
from stationmaster_server.agents.tools.choosing import MOST_BYTES, MOST_TOOLS, Chosen, Same, Taken, choose
from stationmaster_server.agents.tools.tool import ToolContext, ToolError
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import StationmasterError
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import (
    BlobContent,
    CallResult,
    Content,
    McpServer,
    ResourceContent,
    TextContent,
    Tool,
)
from stationmaster_server.mcp.registry import Registry

EVERY = "*"
_MOST_KEPT = 256


@dataclass(frozen=True, slots=True)
class McpTool:
    """One tool of one server."""

    server: McpServer
    tool: Tool
    connections: Connections

    @property
    def name(self) -> str:
        """`{server}.{tool}`."""
        return f"{self.server.server_id}.{self.tool.name}"

    @property
    def description(self) -> str:
        """The server's own words, said to be a third party's."""
        return f"(Of the MCP server {self.server.server_id!r}, in its own words:) {self.tool.description}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of its arguments."""
        return self.tool.input_schema

    @property
    def effect(self) -> Effect:
        """ASK, unless its server is believed and says that it only reads."""
        return Effect.ALLOW if self.server.trust_annotations and self.tool.read_only else Effect.ASK

    @property
    def deadline(self) -> timedelta:
        """After that of its connection, which alone knows whether the call may have happened."""
        return self.server.longest_call

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raises ToolError that names the place which does not fit the schema."""
        from stationmaster_server.mcp.schemas import check_arguments

        try:
            check_arguments(self.name, self.tool.input_schema, arguments)
        except StationmasterError as error:
            raise ToolError(error.message) from None

    async def run(self, context: ToolContext, arguments: Mapping[str, Any]) -> str:
        """Call it; cancelling this cancels the call on its server."""
        target = Target(Tenant(context.organization_id, context.user_id), self.server)
        heard = _Heard(self.server.server_id, context)
        try:
            result = await self.connections.call(target, self.tool.name, arguments, listener=heard)
        except StationmasterError as error:
            raise ToolError(error.message) from None
        text = text_of(result)
        if result.is_error:
            raise ToolError(text or f"{self.name} failed without a word.")
        return text


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a server tells while a call runs becomes what the call reports."""

    server_id: str
    context: ToolContext

    def progress(self, message: str, fraction: float | None) -> None:
        self.context.report(message, fraction)

    def log(self, level: str, logger: str, text: str) -> None:
        self.context.relay(self.server_id, level, "" if logger == OURS else logger, text)


@dataclass(frozen=True, slots=True)
class Found:
    """The tools of the servers that were named, by name; the servers that gave none or not all of theirs, and why."""

    tools: Mapping[str, McpTool]
    missing: Mapping[str, str]
    key: Hashable


class McpTools:
    """Finds tools of MCP servers."""

    def __init__(self, registry: Registry, connections: Connections) -> None:
        self._registry = registry
        self._connections = connections
        self._kept: dict[Hashable, Chosen[McpTool]] = {}

    async def of(self, tenant: Tenant, names: Sequence[str], patterns: Sequence[str]) -> Found:
        """The tools of these servers, that all are asked for at once. What is wrong with a server is in `missing`."""
        merged = await self._registry.merged(tenant)
        wanted = sorted(merged) if EVERY in names else [name.removeprefix("mcpServers/") for name in names]
        missing = {name: _unknown(name) for name in wanted if name not in merged}
        servers = [merged[name] for name in dict.fromkeys(wanted) if name in merged]
        lists = await asyncio.gather(*(self._list(tenant, server) for server in servers))
        taken: Taken[McpTool] = Taken()
        for server, listed in zip(servers, lists, strict=True):
            if isinstance(listed, str):
                missing[server.server_id] = listed
            elif taken.is_full or taken.take(self._choose(server, listed, patterns)):
                missing[server.server_id] = _too_many(server.server_id)
        return Found(dict(sorted(taken.tools.items())), missing, tuple(taken.key))

    async def _list(self, tenant: Tenant, server: McpServer) -> tuple[Tool, ...] | str:
        try:
            return await self._connections.tools(Target(tenant, server))
        except StationmasterError as error:
            return error.message

    def _choose(self, server: McpServer, listed: tuple[Tool, ...], patterns: Sequence[str]) -> Chosen[McpTool]:
        """Kept with the list, which is the same one until the server's changed: going through it takes long.

        All tools of a server are offered, unless the specification names some of them.
        """
        own = tuple(pattern for pattern in patterns if pattern.startswith(f"{server.server_id}."))
        key = (server.server_id, server.etag, Same(listed), own)
        chosen = self._kept.get(key)
        if chosen is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            tools = (McpTool(server, tool, self._connections) for tool in listed if _usable(server, tool))
            chosen = choose(one for one in tools if not own or any(fnmatchcase(one.name, pattern) for pattern in own))
            self._kept[key] = chosen
        return chosen


def _usable(server: McpServer, tool: Tool) -> bool:
    return not tool.unusable_reason and server.allows(tool.name)


def _unknown(name: str) -> str:
    return f"MCP server {name!r} is not registered for this user or organization, or is disabled"


def _too_many(name: str) -> str:
    return (
        f"not all tools of MCP server {name!r} are offered: a turn has at most {MOST_TOOLS} tools of MCP servers, of "
        f"{MOST_BYTES:,} bytes together. Choose some with patterns in the specification's tools, like '{name}.read_*'"
    )


def text_of(result: CallResult) -> str:
    """An answer as text: its texts, a line for whatever else it has, or its data when it has no text."""
    lines = [_line(content) for content in result.content]
    if not any(isinstance(content, TextContent) for content in result.content) and result.structured is not None:
        lines.append(json.dumps(result.structured, ensure_ascii=False))
    if result.truncated:
        lines.append("[something was left out here: the answer was too large]")
    return "\n".join(lines)


def _line(content: Content) -> str:
    match content:
        case TextContent(text):
            return text
        case BlobContent(kind, data, mime_type):
            return f"[{kind}, {mime_type}, {len(data)} bytes]"
        case ResourceContent():
            if content.text is not None:
                return content.text
            size = "" if content.blob is None else f", {len(content.blob)} bytes"
            return f"[resource {content.uri}{f', {content.mime_type}' if content.mime_type else ''}{size}]"
        case _:
            assert_never(content)
