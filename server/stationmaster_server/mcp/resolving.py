"""Puts the secrets of credentials into a server's headers or environment, just before a connection to it is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import assert_never

from stationmaster_server.credentials.using import Kind, Using
from stationmaster_server.db.model import Tenant
from stationmaster_server.mcp.model import BuiltIn, Http, McpServer, Stdio
from stationmaster_server.mcp.slots import Target

PURPOSE = "mcp"
Resolve = Callable[[Target], Awaitable[McpServer]]
"""The server with all that a connection needs."""


class Resolving:
    """What a server names counts as whoever named it may have it, whoever uses the server."""

    def __init__(self, using: Using) -> None:
        self._using = using

    async def __call__(self, target: Target) -> McpServer:
        """The server with its secrets. Raises what `Using.filled` raises."""
        server = target.server
        transport = server.transport
        if isinstance(transport, BuiltIn) or transport.granter is None:
            return server
        tenant = Tenant(target.tenant.organization_id, transport.granter)
        return replace(server, transport=await self.filled(tenant, server.server_id, transport))

    async def filled(self, tenant: Tenant, server_id: str, transport: Stdio | Http) -> Stdio | Http:
        """A transport with the secrets that a user may have."""
        kind = Kind.HEADER if isinstance(transport, Http) else Kind.ENVIRONMENT
        found = await self._using.filled(
            tenant, transport.credentials, kind, purpose=PURPOSE, used_by=f"mcpServers/{server_id}"
        )
        match transport:
            case Http():
                return replace(transport, headers={**transport.headers, **found.texts}, secrets=found.secrets)
            case Stdio():
                return replace(transport, environment={**transport.environment, **found.texts}, secrets=found.secrets)
            case _:
                assert_never(transport)


async def unresolved(target: Target) -> McpServer:
    """The server as it is."""
    return target.server
