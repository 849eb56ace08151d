"""The queries of MCP servers. Every one names the organization, whatever row-level security does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from stationmaster_server.db.listing import Clause, Page
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists
from stationmaster_server.mcp.model import Level, McpServer
from stationmaster_server.mcp.transport_json import transport_from_json, transport_to_json

# The secrets are read only where a connection is made of them.
_SHOWN = """server_id, uid, level, display_name, description, transport, disabled, allowed_tools, idempotent_tools,
    trust_annotations, call_timeout, connect_timeout, etag, created_at, updated_at"""


async def insert(tx: Transaction, organization_id: UUID, owner_id: UUID, server: McpServer) -> McpServer:
    """A new server; its times are the database's. AlreadyExists when its owner has one of this id."""
    sql = f"""
    INSERT INTO mcp_servers (organization_id, owner_id, server_id, uid, level, display_name, description, transport,
                             secrets, disabled, allowed_tools, idempotent_tools, trust_annotations, call_timeout,
                             connect_timeout, etag)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) RETURNING {_SHOWN}
    """
    try:
        row = await tx.fetchrow(
            sql, organization_id, owner_id, server.server_id, server.uid, server.level, *_changeable(server)
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "mcp_servers_pkey":
            raise
        raise AlreadyExists("McpServer", f"mcpServers/{server.server_id}") from None
    return _one(row)


async def update(tx: Transaction, organization_id: UUID, owner_id: UUID, server: McpServer) -> McpServer:
    """Write what can be changed of a server."""
    sql = f"""
    UPDATE mcp_servers
    SET display_name = $4, description = $5, transport = $6, secrets = $7, disabled = $8, allowed_tools = $9,
        idempotent_tools = $10, trust_annotations = $11, call_timeout = $12, connect_timeout = $13, etag = $14,
        updated_at = now()
    WHERE organization_id = $1 AND owner_id = $2 AND server_id = $3 RETURNING {_SHOWN}
    """
    return _one(await tx.fetchrow(sql, organization_id, owner_id, server.server_id, *_changeable(server)))


async def delete(tx: Transaction, organization_id: UUID, owner_id: UUID, server_id: str) -> None:
    """Remove a server."""
    await tx.execute(
        "DELETE FROM mcp_servers WHERE organization_id = $1 AND owner_id = $2 AND server_id = $3",
        organization_id,
        owner_id,
        server_id,
    )


async def lock(tx: Transaction, organization_id: UUID, owner_id: UUID, server_id: str) -> McpServer | None:
    """A server with its secrets, that nobody else changes until this transaction ends."""
    row = await tx.fetchrow(
        f"""SELECT {_SHOWN}, secrets FROM mcp_servers
            WHERE organization_id = $1 AND owner_id = $2 AND server_id = $3 FOR NO KEY UPDATE""",
        organization_id,
        owner_id,
        server_id,
    )
    return None if row is None else _server(row, row["secrets"])


async def of_owners(
    tx: Transaction, organization_id: UUID, owners: Sequence[UUID], server_id: str | None = None, *, secrets: bool
) -> list[McpServer]:
    """The servers of these owners: all, or those of one id; with their secrets, or with empty values."""
    rows = await tx.fetch(
        f"""SELECT {_SHOWN}, CASE WHEN $4 THEN secrets END AS secrets FROM mcp_servers
            WHERE organization_id = $1 AND owner_id = ANY($2::uuid[]) AND ($3::text IS NULL OR server_id = $3)""",
        organization_id,
        list(owners),
        server_id,
        secrets,
    )
    return [_server(row, row["secrets"]) for row in rows]


async def count(tx: Transaction, organization_id: UUID, owner_id: UUID) -> int:
    """How many servers an owner has; others that register one wait for this transaction's end."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('mcp_servers' || $1::uuid::text, 0))", owner_id)
    sql = "SELECT count(*) FROM mcp_servers WHERE organization_id = $1 AND owner_id = $2"
    return int(await tx.fetchval(sql, organization_id, owner_id))


# A built-in server stands among the others as if it had been registered when the world began.
_LIST = """
WITH known AS (
    SELECT server_id, uid, level, display_name, description, transport, disabled, allowed_tools, idempotent_tools,
           trust_annotations, call_timeout, connect_timeout, etag, created_at, updated_at,
           CASE level WHEN 'USER' THEN 2 ELSE 1 END AS nearness
    FROM mcp_servers WHERE organization_id = $1 AND owner_id = ANY($2::uuid[])
    UNION ALL
    SELECT id, NULL, 'BUILT_IN', name, '', '{"kind": "built_in", "name": ""}', false, '{}', '{}', true,
           interval '0', interval '0', '', to_timestamp(0), to_timestamp(0), 0
    FROM unnest($3::text[], $4::text[]) AS built_in(id, name)
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY server_id ORDER BY nearness DESC) AS place FROM known
)
"""


async def list_servers(
    tx: Transaction, organization_id: UUID, owners: Sequence[UUID], built_in: Sequence[McpServer], clause: Clause
) -> Page[McpServer]:
    """A page of the servers of these owners and the built-in ones; the clause's placeholders start at 5."""
    known = {server.server_id: server for server in built_in}

    def item(row: Record) -> McpServer:
        return known[row["server_id"]] if row["level"] == Level.BUILT_IN else _server(row, None)

    rows = await tx.fetch(
        f"{_LIST} SELECT *, {clause.cursor_sql} FROM ranked WHERE {clause.where_sql} ORDER BY {clause.order_sql}",
        organization_id,
        list(owners),
        list(known),
        [server.display_name for server in known.values()],
        *clause.args,
    )
    return clause.page(rows, item)


def _changeable(server: McpServer) -> tuple[Any, ...]:
    shown, secrets = transport_to_json(server.transport)
    return (
        server.display_name,
        server.description,
        shown,
        secrets,
        server.disabled,
        list(server.allowed_tools),
        list(server.idempotent_tools),
        server.trust_annotations,
        server.call_timeout,
        server.connect_timeout,
        server.etag,
    )


def _one(row: Record | None) -> McpServer:
    if row is None:
        raise RuntimeError("the statement gave no row")
    return _server(row, None)


def _server(row: Record, secrets: dict[str, str] | None) -> McpServer:
    return McpServer(
        server_id=row["server_id"],
        level=Level(row["level"]),
        transport=transport_from_json(row["transport"], secrets),
        uid=row["uid"],
        display_name=row["display_name"],
        description=row["description"],
        disabled=row["disabled"],
        allowed_tools=tuple(row["allowed_tools"]),
        idempotent_tools=tuple(row["idempotent_tools"]),
        trust_annotations=row["trust_annotations"],
        call_timeout=row["call_timeout"],
        connect_timeout=row["connect_timeout"],
        etag=row["etag"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
