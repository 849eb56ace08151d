"""MCP servers: registering them, sessions with them, and their tools, resources and prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias, Unpack

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import mcp_pb2, mcp_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Pattern, Query

NEAREST = mcp_pb2.MCP_LEVEL_UNSPECIFIED
Level: TypeAlias = mcp_pb2.McpLevel.ValueType


class Mcp:
    """`mcpServers/…` and `mcpSessions/…`. Every method takes the name or the server's bare id.

    `parent` is a server, or a session with one.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = mcp_pb2_grpc.McpServiceStub(calls.channel)

    async def register(
        self, server_id: str, server: mcp_pb2.McpServer, *, validate_only: bool = False, request_id: str = ""
    ) -> mcp_pb2.McpServer:
        """Register a server under an id of your choice (`^[a-z][a-z0-9-]{0,62}$`); yours, unless `level` differs."""
        request = mcp_pb2.RegisterMcpServerRequest(
            mcp_server_id=server_id, mcp_server=server, validate_only=validate_only, request_id=request_id
        )
        return await self._calls.unary(self._stub.RegisterMcpServer, request)

    async def get(self, name: str, *, level: Level = NEAREST) -> mcp_pb2.McpServer:
        """Return one server; its secrets are left empty."""
        request = mcp_pb2.GetMcpServerRequest(name=full("mcpServers", name), level=level)
        return await self._calls.unary(self._stub.GetMcpServer, request)

    def list(
        self, *, show_hidden: bool = False, **query: Unpack[Query]
    ) -> Listing[mcp_pb2.McpServer, mcp_pb2.ListMcpServersResponse]:
        """List the servers that you may use; with `show_hidden` also those behind a nearer one of their name."""

        async def fetch(token: str) -> mcp_pb2.ListMcpServersResponse:
            request = mcp_pb2.ListMcpServersRequest(page_token=token, show_hidden=show_hidden, **query)
            return await self._calls.unary(self._stub.ListMcpServers, request)

        return Listing(fetch, lambda page: page.mcp_servers)

    async def update(
        self,
        server: mcp_pb2.McpServer,
        paths: Iterable[str] = (),
        *,
        validate_only: bool = False,
        request_id: str = "",
    ) -> mcp_pb2.McpServer:
        """Change the fields named by `paths`, or all that are set. With its `etag` a stale server is refused.

        An environment variable or header with an empty value keeps the value that it has.
        """
        mask = FieldMask(paths=paths)
        request = mcp_pb2.UpdateMcpServerRequest(
            mcp_server=server,
            update_mask=mask if mask.paths else None,
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.UpdateMcpServer, request)

    async def delete(self, name: str, *, level: Level = NEAREST, etag: str = "", request_id: str = "") -> None:
        """Delete a server and close its sessions."""
        request = mcp_pb2.DeleteMcpServerRequest(
            name=full("mcpServers", name), level=level, etag=etag, request_id=request_id
        )
        await self._calls.unary(self._stub.DeleteMcpServer, request)

    async def check(self, name: str, *, level: Level = NEAREST) -> mcp_pb2.CheckMcpServerResponse:
        """Connect to a server and tell how it is. One that cannot be reached is an answer, not an error."""
        request = mcp_pb2.CheckMcpServerRequest(name=full("mcpServers", name), level=level)
        return await self._calls.unary(self._stub.CheckMcpServer, request)

    async def open_session(
        self, server: str, *, idle_timeout: timedelta | None = None, request_id: str = ""
    ) -> mcp_pb2.McpSession:
        """Open a connection of your own, for servers that keep state between calls."""
        request = mcp_pb2.OpenMcpSessionRequest(server=full("mcpServers", server), request_id=request_id)
        if idle_timeout is not None:
            limit = Duration()
            limit.FromTimedelta(idle_timeout)
            request.idle_timeout.CopyFrom(limit)
        return await self._calls.unary(self._stub.OpenMcpSession, request)

    async def get_session(self, name: str) -> mcp_pb2.McpSession:
        """Return one session of yours."""
        request = mcp_pb2.GetMcpSessionRequest(name=full("mcpSessions", name))
        return await self._calls.unary(self._stub.GetMcpSession, request)

    def sessions(self, **query: Unpack[Query]) -> Listing[mcp_pb2.McpSession, mcp_pb2.ListMcpSessionsResponse]:
        """List your sessions, newest first."""

        async def fetch(token: str) -> mcp_pb2.ListMcpSessionsResponse:
            request = mcp_pb2.ListMcpSessionsRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListMcpSessions, request)

        return Listing(fetch, lambda page: page.mcp_sessions)

    async def close_session(self, name: str, *, request_id: str = "") -> mcp_pb2.McpSession:
        """Close a session and its connection."""
        request = mcp_pb2.CloseMcpSessionRequest(name=full("mcpSessions", name), request_id=request_id)
        return await self._calls.unary(self._stub.CloseMcpSession, request)

    def tools(self, parent: str, **query: Unpack[Pattern]) -> Listing[mcp_pb2.McpTool, mcp_pb2.ListToolsResponse]:
        """List tools: all, or those of a name or a pattern with `*`."""

        async def fetch(token: str) -> mcp_pb2.ListToolsResponse:
            request = mcp_pb2.ListToolsRequest(parent=full("mcpServers", parent), page_token=token, **query)
            return await self._calls.unary(self._stub.ListTools, request)

        return Listing(fetch, lambda page: page.tools)

    async def call(
        self,
        parent: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: timedelta | None = None,
        request_id: str = "",
    ) -> mcp_pb2.CallToolResponse:
        """Call a tool. One that fails is an answer (`is_error`); `timeout` is this call's, instead of the client's."""
        request = mcp_pb2.CallToolRequest(parent=full("mcpServers", parent), tool=tool, request_id=request_id)
        request.arguments.update(dict(arguments or {}))
        return await self._calls.unary(self._stub.CallTool, request, timeout)

    def resources(
        self, parent: str, **query: Unpack[Pattern]
    ) -> Listing[mcp_pb2.McpResource, mcp_pb2.ListResourcesResponse]:
        """List resources and templates of resources: all, or those of a URI or a pattern with `*`."""

        async def fetch(token: str) -> mcp_pb2.ListResourcesResponse:
            request = mcp_pb2.ListResourcesRequest(parent=full("mcpServers", parent), page_token=token, **query)
            return await self._calls.unary(self._stub.ListResources, request)

        return Listing(fetch, lambda page: page.resources)

    async def read(self, parent: str, uri: str) -> mcp_pb2.ReadResourceResponse:
        """Read a resource."""
        request = mcp_pb2.ReadResourceRequest(parent=full("mcpServers", parent), uri=uri)
        return await self._calls.unary(self._stub.ReadResource, request)

    def prompts(
        self, parent: str, **query: Unpack[Pattern]
    ) -> Listing[mcp_pb2.McpPrompt, mcp_pb2.ListMcpPromptsResponse]:
        """List prompts: all, or those of a name or a pattern with `*`."""

        async def fetch(token: str) -> mcp_pb2.ListMcpPromptsResponse:
            request = mcp_pb2.ListMcpPromptsRequest(parent=full("mcpServers", parent), page_token=token, **query)
            return await self._calls.unary(self._stub.ListMcpPrompts, request)

        return Listing(fetch, lambda page: page.prompts)

    async def prompt(
        self, parent: str, name: str, arguments: Mapping[str, str] | None = None
    ) -> mcp_pb2.GetMcpPromptResponse:
        """Return a prompt with its arguments filled in."""
        request = mcp_pb2.GetMcpPromptRequest(
            parent=full("mcpServers", parent), prompt=name, arguments=dict(arguments or {})
        )
        return await self._calls.unary(self._stub.GetMcpPrompt, request)
