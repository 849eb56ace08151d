"""Sessions with MCP servers: connections of their own, as durable rows that any server can take up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.requests import first_answer, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, NotFound, PreconditionViolation, Reason, ResourceExhausted
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.mcp import session_store
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import McpServer, McpSession, SessionState
from stationmaster_server.mcp.registry import Registry, require_enabled
from stationmaster_server.resilience.loops import attempt

LISTING = Listing(
    {
        "state": Field("state", SessionState),
        "server": Field("('mcpServers/' || server_id)", str),
        "create_time": Field("created_at", datetime),
        "last_used_time": Field("last_used_at", datetime),
    },
    key="id",
    default_order="create_time desc",
)
DEFAULT_IDLE = timedelta(minutes=5)
MOST_OPEN = 10
_IDLE, _CLOSED_BY_CALLER = "nobody used it for its idle timeout", "closed by its user"
_BATCH = 100
_REMEMBERED = timedelta(days=7)


class McpSessions:
    """The sessions of a caller. The connection is made by whatever server process gets the next call."""

    def __init__(self, database: Database, audit: AuditLog, registry: Registry, connections: Connections) -> None:
        self._database = database
        self._audit = audit
        self._registry = registry
        self._connections = connections

    async def open(self, caller: Caller, server_id: str, idle_timeout: timedelta | None) -> McpSession:
        """Connect, and keep the connection for the caller.

        Raises NotFound, Unavailable(MCP_SERVER_UNAVAILABLE), FailedPrecondition, ResourceExhausted(LIMIT_REACHED).
        """
        tenant, session_id = caller.tenant, new_id()
        again = await first_answer(self._database, caller, McpSession)
        if again is not None:
            return again
        server = await self._registry.usable(tenant, server_id)
        target = Target(tenant, server, session_id)
        try:
            await self._connections.connect(target)
            return await self._insert(caller, target, idle_timeout or DEFAULT_IDLE)
        except BaseException:
            await self._connections.close_session(session_id)
            raise

    async def _insert(self, caller: Caller, target: Target, idle: timedelta) -> McpSession:
        tenant, session_id = caller.tenant, target.session_id
        if session_id is None:
            raise RuntimeError("a session has an id")
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, McpSession)
            if again is None:
                if await session_store.count_open(tx, tenant.organization_id, tenant.user_id) >= MOST_OPEN:
                    raise ResourceExhausted.too_many(
                        "mcp", f"{MOST_OPEN} MCP sessions are open already: close one, or wait until one is idle"
                    )
                made = await session_store.insert(
                    tx, tenant.organization_id, session_id, tenant.user_id, target.server, idle
                )
                await self._write_audit(tx, caller, "mcp_session.open", made)
                await remember(tx, tenant, caller.request_key, made)
                return made
        await self._connections.close_session(session_id)
        return again

    async def get(self, caller: Caller, session_id: UUID) -> McpSession:
        """One session of the caller. Raises NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await self._get(tx, caller, session_id)

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[McpSession]:
        """A page of the caller's sessions, newest first by default."""
        clause = LISTING.sql(filter_text, order_by, page, start=3)
        tenant = caller.tenant
        async with self._database.tenant(tenant, read=True) as tx:
            return await session_store.list_sessions(tx, tenant.organization_id, tenant.user_id, clause)

    async def close(self, caller: Caller, session_id: UUID) -> McpSession:
        """Close a session. Raises NotFound, FailedPrecondition(MCP_SESSION_CLOSED)."""
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, McpSession)
            if again is not None:
                return again
            before = await self._get(tx, caller, session_id)
            closed = await session_store.close(
                tx, tenant.organization_id, tenant.user_id, session_id, _CLOSED_BY_CALLER
            )
            if closed is None:
                raise _closed(before)
            await self._write_audit(tx, caller, "mcp_session.close", closed)
            await remember(tx, tenant, caller.request_key, closed)
        await self._connections.close_session(session_id)
        return closed

    @asynccontextmanager
    async def using(self, caller: Caller, session_id: UUID) -> AsyncIterator[Target]:
        """The server of an open session, to be asked over the session's own connection, which is not idle meanwhile.

        Raises NotFound, FailedPrecondition(MCP_SESSION_CLOSED).
        """
        tenant = caller.tenant

        async def touch() -> None:
            async with self._database.system(autocommit=True) as tx:
                await session_store.touch(tx, tenant.organization_id, tenant.user_id, session_id)

        async def keep() -> None:
            while True:
                await asyncio.sleep(session.idle_timeout.total_seconds() / 4)
                await attempt("keep an MCP session that is used", touch)

        await touch()  # first: what is open from here on is not idle
        session, server = await self._used(caller, session_id)
        keeping = asyncio.create_task(keep())
        try:
            yield Target(tenant, server, session_id)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _used(self, caller: Caller, session_id: UUID) -> tuple[McpSession, McpServer]:
        tenant = caller.tenant
        async with self._database.tenant(tenant, read=True) as tx:
            session = await self._get(tx, caller, session_id)
            if session.state is SessionState.CLOSED:
                raise _closed(session)
            server = await self._registry.find_in(tx, tenant, session.server_id, session.level, secrets=True)
        if server.uid != session.server_uid:
            raise NotFound("McpServer", f"mcpServers/{session.server_id}")
        require_enabled(server)
        return session, server

    async def end_closed(self) -> int:
        """End the connections here of sessions that were closed elsewhere; returns how many."""
        here = self._connections.sessions
        if not here:
            return 0
        async with self._database.system(autocommit=True) as tx:
            still = await session_store.open_among(tx, here)
        ended = [session_id for session_id in here if session_id not in still]
        for session_id in ended:
            await self._connections.close_session(session_id)
        return len(ended)

    async def close_idle(self) -> int:
        """Close the sessions that nobody used for their time; returns how many. Safe on every server at once."""
        async with self._database.system() as tx:
            idle = await session_store.close_idle(tx, _IDLE, _BATCH)
            for organization_id, session in idle:
                caller = _system(organization_id, session)
                await self._write_audit(tx, caller, "mcp_session.close", session, organization_id)
        for _, session in idle:
            await self._connections.close_session(session.id)
        return len(idle)

    async def forget_closed(self) -> int:
        """Forget the sessions that were closed long ago; returns how many. The trail still has them."""
        total = 0
        while True:  # a transaction each, so that none holds many rows
            async with self._database.system() as tx:
                forgotten = await session_store.forget_closed(tx, _REMEMBERED, _BATCH)
            total += forgotten
            if forgotten < _BATCH:
                return total

    async def _get(self, tx: Transaction, caller: Caller, session_id: UUID) -> McpSession:
        tenant = caller.tenant
        session = await session_store.get(tx, tenant.organization_id, tenant.user_id, session_id)
        if session is None:
            raise NotFound("McpSession", f"mcpSessions/{session_id}")
        return session

    async def _write_audit(
        self, tx: Transaction, caller: Caller, action: str, session: McpSession, organization_id: UUID | None = None
    ) -> None:
        details = {"server": f"mcpServers/{session.server_id}", "reason": session.state_reason}
        entry = AuditEntry(action, f"mcpSessions/{session.id}", details=details)
        await self._audit.write(tx, caller, entry, organization_id=organization_id)


def _closed(session: McpSession) -> FailedPrecondition:
    name, advice = f"mcpSessions/{session.id}", "open another one with OpenMcpSession"
    text = f"{name} is closed ({session.state_reason}): {advice}"
    return FailedPrecondition(Reason.MCP_SESSION_CLOSED, text, PreconditionViolation("MCP_SESSION", name, advice))


def _system(organization_id: UUID, session: McpSession) -> Caller:
    return Caller(
        tenant=Tenant(organization_id, session.user_id),
        role=Role.SERVICE,
        scopes=frozenset(),
        key_id=None,
        subject="system",
        request_id=f"idle-{session.id}",
        peer="",
        method="",
    )
