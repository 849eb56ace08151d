"""McpService: messages in, the services, messages out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from stationmaster.v1 import mcp_pb2 as pb
from stationmaster.v1 import mcp_pb2_grpc

from stationmaster_server.mcp import convert
from stationmaster_server.mcp.calling import McpCalls
from stationmaster_server.mcp.service import UPDATABLE, McpServers
from stationmaster_server.mcp.sessions import McpSessions
from stationmaster_server.wire.caller import caller_of, current_caller, time_left
from stationmaster_server.wire.fields import mapping, masked, span
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]
_ANSWERING = timedelta(seconds=1)
_UPDATABLE = UPDATABLE - {"transport"} | {"stdio", "http"}


class McpServicer(mcp_pb2_grpc.McpServiceServicer):
    """The methods of McpService."""

    def __init__(self, servers: McpServers, sessions: McpSessions, calls: McpCalls, tokens: PageTokens) -> None:
        self._servers = servers
        self._sessions = sessions
        self._calls = calls
        self._tokens = tokens

    async def RegisterMcpServer(self, request: pb.RegisterMcpServerRequest, context: Context) -> pb.McpServer:
        """A new server."""
        new = convert.new_server(request.mcp_server_id, request.mcp_server)
        made = await self._servers.register(caller_of(request), new, validate_only=request.validate_only)
        return convert.server_to_proto(made)

    async def GetMcpServer(self, request: pb.GetMcpServerRequest, context: Context) -> pb.McpServer:
        """One server."""
        server_id = convert.server_id_of(request.name)
        found = await self._servers.get(current_caller(), server_id, convert.level_of(request.level))
        return convert.server_to_proto(found)

    async def ListMcpServers(self, request: pb.ListMcpServersRequest, context: Context) -> pb.ListMcpServersResponse:
        """A page of servers."""
        page = await self._servers.list(
            current_caller(), request.filter, request.order_by, self._tokens.read(request), hidden=request.show_hidden
        )
        servers, token = self._tokens.page(request, page, convert.server_to_proto)
        return pb.ListMcpServersResponse(mcp_servers=servers, next_page_token=token)

    async def UpdateMcpServer(self, request: pb.UpdateMcpServerRequest, context: Context) -> pb.McpServer:
        """A server changed."""
        message = request.mcp_server
        changed = await self._servers.update(
            caller_of(request),
            convert.server_id_of(message.name, "mcp_server.name"),
            convert.level_of(message.level),
            convert.server_changes(message, masked(request, _UPDATABLE)),
            message.etag,
            validate_only=request.validate_only,
        )
        return convert.server_to_proto(changed)

    async def DeleteMcpServer(self, request: pb.DeleteMcpServerRequest, context: Context) -> Empty:
        """A server deleted."""
        server_id = convert.server_id_of(request.name)
        await self._servers.delete(caller_of(request), server_id, convert.level_of(request.level), request.etag)
        return Empty()

    async def CheckMcpServer(self, request: pb.CheckMcpServerRequest, context: Context) -> pb.CheckMcpServerResponse:
        """How a server is."""
        server_id = convert.server_id_of(request.name)
        level = convert.level_of(request.level)
        checked = await self._servers.check(caller_of(request), server_id, level, _to_answer_in(time_left()))
        return convert.check_to_proto(checked)

    async def OpenMcpSession(self, request: pb.OpenMcpSessionRequest, context: Context) -> pb.McpSession:
        """A new session."""
        server_id = convert.server_id_of(request.server, "server")
        opened = await self._sessions.open(caller_of(request), server_id, span(request, "idle_timeout"))
        return convert.session_to_proto(opened)

    async def GetMcpSession(self, request: pb.GetMcpSessionRequest, context: Context) -> pb.McpSession:
        """One session."""
        session_id = parse(convert.SESSION_NAME, request.name)
        return convert.session_to_proto(await self._sessions.get(current_caller(), session_id))

    async def ListMcpSessions(self, request: pb.ListMcpSessionsRequest, context: Context) -> pb.ListMcpSessionsResponse:
        """A page of sessions."""
        page = await self._sessions.list(current_caller(), request.filter, request.order_by, self._tokens.read(request))
        sessions, token = self._tokens.page(request, page, convert.session_to_proto)
        return pb.ListMcpSessionsResponse(mcp_sessions=sessions, next_page_token=token)

    async def CloseMcpSession(self, request: pb.CloseMcpSessionRequest, context: Context) -> pb.McpSession:
        """A session closed."""
        session_id = parse(convert.SESSION_NAME, request.name)
        return convert.session_to_proto(await self._sessions.close(caller_of(request), session_id))

    async def ListTools(self, request: pb.ListToolsRequest, context: Context) -> pb.ListToolsResponse:
        """A page of tools."""
        server_id, page = await self._calls.tools(
            current_caller(), convert.parent_of(request.parent), request.filter, self._tokens.read(request)
        )
        tools, token = self._tokens.page(request, page, lambda tool: convert.tool_to_proto(server_id, tool))
        return pb.ListToolsResponse(tools=tools, next_page_token=token)

    async def CallTool(self, request: pb.CallToolRequest, context: Context) -> pb.CallToolResponse:
        """A tool's answer."""
        result, took = await self._calls.call(
            caller_of(request),
            convert.parent_of(request.parent),
            request.tool,
            mapping(request.arguments, "arguments"),
            time_left(),
        )
        return convert.result_to_proto(result, took)

    async def ListResources(self, request: pb.ListResourcesRequest, context: Context) -> pb.ListResourcesResponse:
        """A page of resources."""
        page = await self._calls.resources(
            current_caller(), convert.parent_of(request.parent), request.filter, self._tokens.read(request)
        )
        resources, token = self._tokens.page(request, page, convert.resource_to_proto)
        return pb.ListResourcesResponse(resources=resources, next_page_token=token)

    async def ReadResource(self, request: pb.ReadResourceRequest, context: Context) -> pb.ReadResourceResponse:
        """A resource's contents."""
        parent = convert.parent_of(request.parent)
        contents, truncated = await self._calls.read(current_caller(), parent, request.uri, time_left())
        return pb.ReadResourceResponse(contents=convert.contents_to_proto(contents), truncated=truncated)

    async def ListMcpPrompts(self, request: pb.ListMcpPromptsRequest, context: Context) -> pb.ListMcpPromptsResponse:
        """A page of prompts."""
        page = await self._calls.prompts(
            current_caller(), convert.parent_of(request.parent), request.filter, self._tokens.read(request)
        )
        prompts, token = self._tokens.page(request, page, convert.prompt_to_proto)
        return pb.ListMcpPromptsResponse(prompts=prompts, next_page_token=token)

    async def GetMcpPrompt(self, request: pb.GetMcpPromptRequest, context: Context) -> pb.GetMcpPromptResponse:
        """A prompt, filled in."""
        parent = convert.parent_of(request.parent)
        filled = await self._calls.prompt(
            current_caller(), parent, request.prompt, dict(request.arguments), time_left()
        )
        return convert.filled_to_proto(filled)


def _to_answer_in(left: timedelta | None) -> timedelta | None:
    """What is left of the caller's time for work whose answer shall reach him within it."""
    return None if left is None else left - min(left / 2, _ANSWERING)
