"""Registered MCP servers: the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, assert_never

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials.rights import require_naming
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.requests import first_answer, look, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PreconditionViolation,
    Reason,
    ResourceExhausted,
    require_etag,
)
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.roles import require_administrator
from stationmaster_server.mcp import session_store, store
from stationmaster_server.mcp.admission import Admission
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import BuiltIn, Check, Http, Level, McpServer, Stdio, Transport
from stationmaster_server.mcp.registry import Registry, owner_of
from stationmaster_server.mcp.resolving import Resolving
from stationmaster_server.mcp.transport_json import with_secrets_of

LISTING = Listing(
    {
        "server_id": Field("ranked.server_id", str),
        "display_name": Field("ranked.display_name", str),
        "level": Field("ranked.level", Level),
        "enabled": Field("(NOT ranked.disabled)", bool),
        "create_time": Field("ranked.created_at", datetime),
        "update_time": Field("ranked.updated_at", datetime),
    },
    key="(ranked.server_id || '/' || ranked.level)",
    key_type=str,
    default_order="server_id",
)
UPDATABLE = frozenset(
    {
        "display_name",
        "description",
        "transport",
        "disabled",
        "allowed_tools",
        "idempotent_tools",
        "trust_annotations",
        "call_timeout",
        "connect_timeout",
    }
)
MOST_SERVERS = 100
_DELETED = "its MCP server was deleted"


@dataclass(frozen=True, slots=True)
class _Deleted:
    """What is remembered of a deletion."""

    server_id: str


class McpServers:
    """The servers that a caller may use, and how they are changed."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        registry: Registry,
        connections: Connections,
        admission: Admission,
        resolving: Resolving,
    ) -> None:
        self._database = database
        self._audit = audit
        self._registry = registry
        self._connections = connections
        self._admission = admission
        self._resolving = resolving

    async def register(self, caller: Caller, new: McpServer, *, validate_only: bool = False) -> McpServer:
        """Register a server for the caller or its organization.

        Raises AlreadyExists, PermissionDenied, FailedPrecondition(COMMAND_REFUSED, ADDRESS_REFUSED),
        ResourceExhausted(LIMIT_REACHED).
        """
        if not validate_only and (again := await first_answer(self._database, caller, McpServer)) is not None:
            return again
        self._admission.check_id(new.server_id)
        _require_level(caller, new)
        await self._check_transport(caller, new)
        new = replace(new, transport=await self._granted(caller, new))
        tenant, owner = caller.tenant, owner_of(caller.tenant, new.level)
        new = replace(new, uid=new_id(), etag=new_id().hex)
        if validate_only:
            await self._require_free(caller, new)
            return new
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, McpServer)
            if again is not None:
                return again
            if await store.count(tx, tenant.organization_id, owner) >= MOST_SERVERS:
                raise ResourceExhausted.too_many(
                    "mcp", f"{MOST_SERVERS} MCP servers are registered here already: delete one first"
                )
            made = await store.insert(tx, tenant.organization_id, owner, new)
            await self._write_audit(tx, caller, "mcp_server.register", made)
            await remember(tx, tenant, caller.request_key, made)
            return made

    async def get(self, caller: Caller, server_id: str, level: Level | None = None) -> McpServer:
        """One server, without its secrets. Raises NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await self._registry.find_in(tx, caller.tenant, server_id, level)

    async def list(
        self, caller: Caller, filter_text: str, order_by: str, page: PageRequest, *, hidden: bool
    ) -> Page[McpServer]:
        """A page of the servers that the caller may use; `hidden`: also those behind a nearer one of their name."""
        clause = LISTING.sql(filter_text, order_by, page, start=5)
        if not hidden:
            clause = replace(clause, where_sql=f"place = 1 AND ({clause.where_sql})")
        tenant = caller.tenant
        built_in = list(self._registry.built_in(tenant.organization_id).values())
        async with self._database.tenant(tenant, read=True) as tx:
            owners = (tenant.organization_id, tenant.user_id)
            return await store.list_servers(tx, tenant.organization_id, owners, built_in, clause)

    async def update(
        self,
        caller: Caller,
        server_id: str,
        level: Level | None,
        changes: Mapping[str, Any],
        etag: str = "",
        *,
        validate_only: bool = False,
    ) -> McpServer:
        """Change fields, by their names in `McpServer`. Calls begun afterwards use the new configuration.

        Raises NotFound, Aborted(ETAG_MISMATCH), PermissionDenied, FailedPrecondition.
        """
        tenant = caller.tenant
        if validate_only:
            caller = replace(caller, request_key=None)
        again = await first_answer(self._database, caller, McpServer)
        if again is not None:
            return again
        if "transport" in changes:
            meant = McpServer(server_id, Level.USER, changes["transport"])
            await self._check_transport(caller, meant)
            changes = {**changes, "transport": await self._granted(caller, meant)}
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, McpServer)
            if again is not None:
                return again
            server = await self._locked(tx, caller, server_id, level, etag)
            changed = replace(server, **changes, etag=new_id().hex)
            if "transport" in changes:
                changed = replace(changed, transport=with_secrets_of(changed.transport, server.transport))
            if validate_only:
                tx.audited = True  # nothing is changed
                return changed
            made = await store.update(tx, tenant.organization_id, owner_of(tenant, server.level), changed)
            await self._write_audit(tx, caller, "mcp_server.update", made, paths=sorted(changes))
            await remember(tx, tenant, caller.request_key, made)
        if made.uid is not None:
            await self._connections.forget(made.uid)
        return made

    async def delete(self, caller: Caller, server_id: str, level: Level | None, etag: str = "") -> None:
        """Delete a server and close its sessions. Raises NotFound, Aborted(ETAG_MISMATCH), PermissionDenied."""
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            if await recall(tx, tenant, caller.request_key, _Deleted) is not None:
                return
            server = await self._locked(tx, caller, server_id, level, etag)
            await store.delete(tx, tenant.organization_id, owner_of(tenant, server.level), server_id)
            closed = []
            if server.uid is not None:
                closed = await session_store.close_of_server(tx, tenant.organization_id, server.uid, _DELETED)
            await self._write_audit(tx, caller, "mcp_server.delete", server, sessions=len(closed))
            await remember(tx, tenant, caller.request_key, _Deleted(server_id))
        for session_id in closed:
            await self._connections.close_session(session_id)
        if server.uid is not None:
            await self._connections.forget(server.uid)

    async def check(
        self, caller: Caller, server_id: str, level: Level | None, timeout: timedelta | None = None
    ) -> Check:
        """Connect and say within that time how the server is. Raises NotFound."""
        tenant = caller.tenant
        async with self._database.tenant(tenant, read=True) as tx:
            again = await look(tx, tenant, caller.request_key, Check)
            if again is not None:
                return again
            server = await self._registry.find_in(tx, tenant, server_id, level, secrets=True)
        checked = await self._connections.check(Target(tenant, server), timeout=timeout)
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Check)
            if again is not None:
                return again
            await self._write_audit(tx, caller, "mcp_server.check", server, healthy=checked.healthy)
            await remember(tx, tenant, caller.request_key, checked)
        return checked

    async def _locked(
        self, tx: Transaction, caller: Caller, server_id: str, level: Level | None, etag: str
    ) -> McpServer:
        """The registered server that is meant, which the caller may change, locked."""
        tenant = caller.tenant
        found = await self._registry.find_in(tx, tenant, server_id, level)
        if found.level is Level.BUILT_IN:
            raise _built_in(server_id)
        _require_level(caller, found)
        server = await store.lock(tx, tenant.organization_id, owner_of(tenant, found.level), server_id)
        if server is None:
            raise NotFound("McpServer", f"mcpServers/{server_id}")
        require_etag(f"mcpServers/{server_id}", server.etag, etag)
        return server

    async def _check_transport(self, caller: Caller, server: McpServer) -> None:
        match server.transport:
            case Stdio() as stdio:
                require_administrator(caller, "run a command as an MCP server")
                self._admission.check_command(stdio.command)
            case Http() as http:
                await self._admission.check_url(http.url)
            case BuiltIn():
                raise _built_in(server.server_id)
            case _:
                assert_never(server.transport)

    async def _granted(self, caller: Caller, server: McpServer) -> Transport:
        """The transport, with the caller's right to the credentials that it names. Raises what refuses it that."""
        transport = server.transport
        if isinstance(transport, BuiltIn) or not transport.credentials:
            return transport
        require_naming(caller, transport.credentials)
        granted = replace(transport, granter=caller.tenant.user_id)
        await self._resolving.filled(caller.tenant, server.server_id, granted)
        return granted

    async def _require_free(self, caller: Caller, new: McpServer) -> None:
        async with self._database.tenant(caller.tenant, read=True) as tx:
            owners = [owner_of(caller.tenant, new.level)]
            if await store.of_owners(tx, caller.tenant.organization_id, owners, new.server_id, secrets=False):
                raise AlreadyExists("McpServer", f"mcpServers/{new.server_id}")

    async def _write_audit(
        self, tx: Transaction, caller: Caller, action: str, server: McpServer, **details: object
    ) -> None:
        told = {"level": server.level.value, "transport": type(server.transport).__name__.lower(), **details}
        entry = AuditEntry(action, f"mcpServers/{server.server_id}", category=Category.SECURITY, details=told)
        await self._audit.write(tx, caller, entry)


def _require_level(caller: Caller, server: McpServer) -> None:
    match server.level:
        case Level.USER:
            return
        case Level.ORGANIZATION:
            require_administrator(caller, "change the organization's MCP servers")
        case Level.BUILT_IN:
            raise _built_in(server.server_id)
        case _:
            assert_never(server.level)


def _built_in(server_id: str) -> FailedPrecondition:
    advice = "built-in MCP servers come with the installation's settings"
    name = f"mcpServers/{server_id}"
    return FailedPrecondition(
        Reason.RUNTIME_UNAVAILABLE, f"{name} cannot be changed: {advice}", PreconditionViolation("LEVEL", name, advice)
    )
