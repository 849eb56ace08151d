"""Which MCP servers somebody's sessions may name: three levels merged by name, the nearer one wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, NotFound, PreconditionViolation, Reason
from stationmaster_server.mcp import store
from stationmaster_server.mcp.model import NEARNESS, Level, McpServer

BuiltInServers = Callable[[UUID], Mapping[str, McpServer]]
"""The built-in servers that an organization may use, by id."""


class Registry:
    """The servers of a user, its organization, and this installation, with all that a connection needs."""

    def __init__(self, database: Database, built_in: BuiltInServers) -> None:
        self._database = database
        self.built_in = built_in

    async def merged(self, tenant: Tenant) -> Mapping[str, McpServer]:
        """What a session may use, by id. A disabled server is not in it, and hides those behind it."""
        found = dict(self.built_in(tenant.organization_id))
        owners = (tenant.organization_id, tenant.user_id)
        async with self._database.tenant(tenant, read=True) as tx:
            registered = await store.of_owners(tx, tenant.organization_id, owners, secrets=True)
        for server in sorted(registered, key=_nearness):
            found[server.server_id] = server
        return {server_id: server for server_id, server in found.items() if not server.disabled}

    async def find(self, tenant: Tenant, server_id: str, level: Level | None = None) -> McpServer:
        """The server of a level, or the nearest, with its secrets. Raises NotFound."""
        async with self._database.tenant(tenant, read=True) as tx:
            return await self.find_in(tx, tenant, server_id, level, secrets=True)

    async def find_in(
        self, tx: Transaction, tenant: Tenant, server_id: str, level: Level | None = None, *, secrets: bool = False
    ) -> McpServer:
        """As `find`, in a transaction; without secrets unless they are asked for."""
        owners = [owner_of(tenant, one) for one in (Level.ORGANIZATION, Level.USER) if level in (None, one)]
        found = await store.of_owners(tx, tenant.organization_id, owners, server_id, secrets=secrets) if owners else []
        built_in = self.built_in(tenant.organization_id).get(server_id)
        if built_in is not None and level in (None, Level.BUILT_IN):
            found.append(built_in)
        if not found:
            raise NotFound("McpServer", f"mcpServers/{server_id}")
        return max(found, key=_nearness)

    async def unknown(self, tx: Transaction, tenant: Tenant, server_ids: Sequence[str]) -> list[str]:
        """Those of these ids that mean no server of this tenant, not even a disabled one."""
        owners = (tenant.organization_id, tenant.user_id)
        registered = await store.of_owners(tx, tenant.organization_id, owners, secrets=False)
        known = {server.server_id for server in registered} | self.built_in(tenant.organization_id).keys()
        return [server_id for server_id in server_ids if server_id not in known]

    async def usable(self, tenant: Tenant, server_id: str) -> McpServer:
        """The nearest server of this id. Raises NotFound, FailedPrecondition when it is disabled."""
        server = await self.find(tenant, server_id)
        require_enabled(server)
        return server


def require_enabled(server: McpServer) -> None:
    """Raises FailedPrecondition when the server is disabled."""
    if server.disabled:
        name, advice = f"mcpServers/{server.server_id}", "enable it with UpdateMcpServer (disabled = false)"
        violation = PreconditionViolation("MCP_SERVER", name, advice)
        raise FailedPrecondition(Reason.RUNTIME_UNAVAILABLE, f"{name} is disabled: {advice}", violation)


def owner_of(tenant: Tenant, level: Level) -> UUID:
    """Who owns the servers of a level that are registered."""
    return tenant.user_id if level is Level.USER else tenant.organization_id


def _nearness(server: McpServer) -> int:
    return NEARNESS[server.level]
