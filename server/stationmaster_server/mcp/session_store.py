"""The queries of sessions with MCP servers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.listing import Clause, Page
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.mcp.model import Level, McpServer, McpSession, SessionState

_COLUMNS = "id, user_id, server_id, level, server_uid, state, state_reason, idle_timeout, created_at, last_used_at"


async def insert(
    tx: Transaction, organization_id: UUID, session_id: UUID, user_id: UUID, server: McpServer, idle: timedelta
) -> McpSession:
    """A new session."""
    row = await tx.fetchrow(
        f"""INSERT INTO mcp_sessions (organization_id, id, user_id, server_id, level, server_uid, idle_timeout)
            VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}""",
        organization_id,
        session_id,
        user_id,
        server.server_id,
        server.level,
        server.uid,
        idle,
    )
    if row is None:
        raise RuntimeError("INSERT .. RETURNING gave no row")
    return _session(row)


async def get(tx: Transaction, organization_id: UUID, user_id: UUID, session_id: UUID) -> McpSession | None:
    """A session of a user."""
    row = await tx.fetchrow(
        f"SELECT {_COLUMNS} FROM mcp_sessions WHERE organization_id = $1 AND user_id = $2 AND id = $3",
        organization_id,
        user_id,
        session_id,
    )
    return None if row is None else _session(row)


async def count_open(tx: Transaction, organization_id: UUID, user_id: UUID) -> int:
    """How many a user has open; others that open one wait for this transaction's end."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('mcp_sessions' || $1::uuid::text, 0))", user_id)
    return int(
        await tx.fetchval(
            "SELECT count(*) FROM mcp_sessions WHERE organization_id = $1 AND user_id = $2 AND state = 'OPEN'",
            organization_id,
            user_id,
        )
    )


async def touch(tx: Transaction, organization_id: UUID, user_id: UUID, session_id: UUID) -> None:
    """A session of a user is used; written about once a quarter of its idle time."""
    await tx.execute(
        """UPDATE mcp_sessions SET last_used_at = now()
           WHERE organization_id = $1 AND user_id = $2 AND id = $3 AND state = 'OPEN'
             AND last_used_at < now() - idle_timeout / 4""",
        organization_id,
        user_id,
        session_id,
    )


async def close(
    tx: Transaction, organization_id: UUID, user_id: UUID, session_id: UUID, reason: str
) -> McpSession | None:
    """Close a session that is open; None when it is not."""
    row = await tx.fetchrow(
        f"""UPDATE mcp_sessions SET state = 'CLOSED', state_reason = $4
            WHERE organization_id = $1 AND user_id = $2 AND id = $3 AND state = 'OPEN' RETURNING {_COLUMNS}""",
        organization_id,
        user_id,
        session_id,
        reason,
    )
    return None if row is None else _session(row)


async def close_of_server(tx: Transaction, organization_id: UUID, server_uid: UUID, reason: str) -> list[UUID]:
    """Close every session of a server; returns their ids."""
    rows = await tx.fetch(
        """UPDATE mcp_sessions SET state = 'CLOSED', state_reason = $3
           WHERE organization_id = $1 AND server_uid = $2 AND state = 'OPEN' RETURNING id""",
        organization_id,
        server_uid,
        reason,
    )
    return [row["id"] for row in rows]


async def open_among(tx: Transaction, sessions: Sequence[UUID]) -> set[UUID]:
    """Those of these sessions, of whatever organization, that are open or are about to be."""
    rows = await tx.fetch(
        """SELECT id FROM unnest($1::uuid[]) AS here(id)
           WHERE NOT EXISTS (SELECT FROM mcp_sessions s WHERE s.id = here.id AND s.state = 'CLOSED')""",
        list(sessions),
    )
    return {row["id"] for row in rows}


async def close_idle(tx: Transaction, reason: str, limit: int) -> list[tuple[UUID, McpSession]]:
    """Close sessions of all organizations that nobody used for their time; each with its organization."""
    rows = await tx.fetch(
        f"""UPDATE mcp_sessions SET state = 'CLOSED', state_reason = $1
            WHERE (organization_id, id) IN (
                SELECT organization_id, id FROM mcp_sessions
                WHERE state = 'OPEN' AND last_used_at < now() - idle_timeout
                ORDER BY last_used_at LIMIT $2 FOR UPDATE SKIP LOCKED)
            RETURNING organization_id, {_COLUMNS}""",
        reason,
        limit,
    )
    return [(row["organization_id"], _session(row)) for row in rows]


async def forget_closed(tx: Transaction, age: timedelta, limit: int) -> int:
    """Delete closed sessions of all organizations that were last used so long ago; returns how many."""
    tag = await tx.execute(
        """DELETE FROM mcp_sessions WHERE (organization_id, id) IN (
               SELECT organization_id, id FROM mcp_sessions
               WHERE state = 'CLOSED' AND last_used_at < now() - $1::interval LIMIT $2)""",
        age,
        limit,
    )
    return int(tag.split()[-1])


async def list_sessions(tx: Transaction, organization_id: UUID, user_id: UUID, clause: Clause) -> Page[McpSession]:
    """A page of a user's sessions; the clause's placeholders start at 3."""
    rows = await tx.fetch(
        f"""SELECT {_COLUMNS}, {clause.cursor_sql} FROM mcp_sessions
            WHERE organization_id = $1 AND user_id = $2 AND {clause.where_sql} ORDER BY {clause.order_sql}""",
        organization_id,
        user_id,
        *clause.args,
    )
    return clause.page(rows, _session)


def _session(row: Record) -> McpSession:
    return McpSession(
        id=row["id"],
        user_id=row["user_id"],
        server_id=row["server_id"],
        level=Level(row["level"]),
        server_uid=row["server_uid"],
        state=SessionState(row["state"]),
        state_reason=row["state_reason"],
        idle_timeout=row["idle_timeout"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
    )
