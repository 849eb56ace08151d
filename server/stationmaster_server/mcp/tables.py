"""The tables of MCP servers and of sessions with them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Interval, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from stationmaster_server.db.schema import tenant_table, timestamp

# The owner is a user, or the organization itself.
mcp_servers = tenant_table(
    "mcp_servers",
    # `WHERE organization_id = $1 AND owner_id = ANY($2)`: what a user's sessions may name.
    Column("owner_id", Uuid, primary_key=True),
    Column("server_id", Text, primary_key=True),
    Column("uid", Uuid, nullable=False),
    Column("level", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    # What may be shown of the transport, and beside it the values that may not.
    Column("transport", JSONB, nullable=False),
    Column("secrets", JSONB, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("allowed_tools", ARRAY(Text), nullable=False),
    Column("idempotent_tools", ARRAY(Text), nullable=False),
    Column("trust_annotations", Boolean, nullable=False),
    Column("call_timeout", Interval, nullable=False),
    Column("connect_timeout", Interval, nullable=False),
    Column("etag", Text, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
)

mcp_sessions = tenant_table(
    "mcp_sessions",
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("server_id", Text, nullable=False),
    Column("level", Text, nullable=False),
    # Of a built-in server: none. A server that is registered anew under the same id is another one.
    Column("server_uid", Uuid),
    Column("state", Text, nullable=False, server_default=text("'OPEN'")),
    Column("state_reason", Text, nullable=False, server_default=text("''")),
    Column("idle_timeout", Interval, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("last_used_at", default_now=True),
)
# ListMcpSessions, and how many a user has open.
Index(None, mcp_sessions.c.organization_id, mcp_sessions.c.user_id, mcp_sessions.c.created_at)
# DeleteMcpServer closes its sessions.
Index(None, mcp_sessions.c.organization_id, mcp_sessions.c.server_uid, postgresql_where=mcp_sessions.c.state == "OPEN")
# Which of the sessions that are connected somewhere were closed.
Index("mcp_sessions_closed_idx", mcp_sessions.c.id, postgresql_where=mcp_sessions.c.state == "CLOSED")
# The sweep of those that are idle.
Index("mcp_sessions_idle_idx", mcp_sessions.c.last_used_at, postgresql_where=mcp_sessions.c.state == "OPEN")
