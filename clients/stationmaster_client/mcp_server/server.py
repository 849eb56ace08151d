"""Builds the MCP server: every tool of `tools/`, and the transcripts of sessions as resources."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from stationmaster_client.channel import client_version
from stationmaster_client.errors import NotFound, StationmasterError
from stationmaster_client.mcp_server.arguments import ToolServer
from stationmaster_client.mcp_server.caller import Call, Callers
from stationmaster_client.mcp_server.errors import explain
from stationmaster_client.mcp_server.tool import TOOLS, add
from stationmaster_client.mcp_server.tools import (  # noqa: F401 - each registers its tools
    account,
    agents,
    maintenance,
    messages,
    permissions,
    sessions,
    turns,
)

_INSTRUCTIONS = """Stationmaster runs AI agents in durable sessions.
To have an agent do something: list_agents (or list_models), create_session, then send_message and read its answer.
Sessions stay: list_sessions and search_messages find earlier ones, list_messages shows what was said.
When an agent waits for permission, ask your user, answer with resolve_permission, then call wait_for_turn.
For operators of the server: get_background_service_status shows what it does by itself, and how that goes."""


def build(callers: Callers) -> MCPServer[Any]:
    """A server whose requests act as `callers` says."""
    server = ToolServer(
        "stationmaster",
        title="Stationmaster",
        instructions=_INSTRUCTIONS,
        version=client_version(),
        log_level="WARNING",
    )
    for definition in TOOLS:
        add(server, definition, callers)

    @server.resource(
        "session://{session}",
        title="Transcript of a session",
        description="The newest messages of a session, the newest first. {session} is the id of sessions/{id}.",
        mime_type="text/plain",
    )
    async def transcript(session: str, context: Context[Any, Any]) -> str:
        client = callers.client(context)
        try:
            found = await messages.list_messages(Call(client, context), session, limit=100, max_characters=20_000)
        except NotFound as error:
            raise ResourceNotFoundError(error.message) from error
        except StationmasterError as error:
            raise ResourceError(explain(error, client.connection.target)) from error
        return found.text()

    return server
