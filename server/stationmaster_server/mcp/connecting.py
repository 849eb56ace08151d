"""Makes connections. Imported when the first is wanted: the library below takes its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mcp.server.mcpserver import MCPServer

from stationmaster_server.db.model import Tenant
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.connection import Connection
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.mcp.model import BuiltIn
from stationmaster_server.mcp.reading import Reader
from stationmaster_server.mcp.slots import Target
from stationmaster_server.mcp.transport_http import HttpClients


def make(
    target: Target, built_in: Mapping[str, Callable[[Tenant], MCPServer]], clients: HttpClients, bounds: Bounds
) -> Connection:
    """A connection that is not begun yet."""
    server = target.server
    reader = Reader(server.server_id, Mask.of(server), bounds)
    factory = built_in.get(server.transport.name) if isinstance(server.transport, BuiltIn) else None
    return Connection(server, reader, clients, factory(target.tenant) if factory else None, bounds)
