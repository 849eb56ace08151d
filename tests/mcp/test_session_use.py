"""A session that is used, beside the sweeps that close the idle ones and forget the closed ones."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import NotFound
from stationmaster_server.mcp.model import Level, McpServer, McpSession, SessionState, Stdio
from stationmaster_server.mcp.registry import Registry
from stationmaster_server.mcp.sessions import McpSessions

from tests.mcp import modern
from tests.mcp.connected import connections
from tests.sessions.builders import make_caller

SERVER = McpServer(
    "board",
    Level.BUILT_IN,
    Stdio(sys.executable, (modern.PROGRAM, "stdio")),
    connect_timeout=timedelta(seconds=60),
)


class SweptMeanwhile(Registry):
    """A registry behind whose reading the sweep for idle sessions runs."""

    sessions: McpSessions

    async def find_in(self, *args: Any, **options: Any) -> McpServer:
        """As usual, a little later."""
        await self.sessions.close_idle()
        return await super().find_in(*args, **options)


@pytest.fixture
def caller(tenant: Tenant) -> Caller:
    return make_caller(tenant)


@pytest_asyncio.fixture
async def sessions(database: Database) -> AsyncIterator[McpSessions]:
    async with AsyncExitStack() as stack:
        audit = AuditLog(database)
        await audit.start()
        stack.push_async_callback(audit.close)
        pool = await stack.enter_async_context(connections())
        registry = SweptMeanwhile(database, lambda organization: {"board": SERVER})
        registry.sessions = McpSessions(database, audit, registry, pool)
        yield registry.sessions


async def last_used(database: Database, session: McpSession, ago: timedelta) -> None:
    """Let the session have been used so long ago."""
    async with database.system() as tx:
        await tx.execute("UPDATE mcp_sessions SET last_used_at = now() - $2::interval WHERE id = $1", session.id, ago)


async def test_a_call_and_the_sweep_agree_on_whether_a_session_is_idle(
    database: Database, sessions: McpSessions, caller: Caller
) -> None:
    session = await sessions.open(caller, "board", None)
    await last_used(database, session, timedelta(hours=1))
    async with sessions.using(caller, session.id) as target:
        assert target.session_id == session.id
        assert (await sessions.get(caller, session.id)).state is SessionState.OPEN


async def test_closed_sessions_are_forgotten_after_a_week(
    database: Database, sessions: McpSessions, caller: Caller
) -> None:
    old, new, used = [await sessions.open(caller, "board", timedelta(days=30)) for _ in range(3)]
    for session in (old, new):
        await sessions.close(caller, session.id)
    await last_used(database, old, timedelta(days=8))
    await last_used(database, used, timedelta(days=8))
    assert await sessions.forget_closed() == 1
    with pytest.raises(NotFound):
        await sessions.get(caller, old.id)
    assert (await sessions.get(caller, new.id)).state is SessionState.CLOSED
    assert (await sessions.get(caller, used.id)).state is SessionState.OPEN
