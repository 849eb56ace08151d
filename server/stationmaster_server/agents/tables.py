"""The table of agents."""

from __future__ import annotations

from sqlalchemy import Column, Index, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from stationmaster_server.db.schema import tenant_table, timestamp

agents = tenant_table(
    "agents",
    # `WHERE organization_id = $1 AND agent_id = $2`: every read and change of one agent.
    Column("agent_id", Text, primary_key=True),
    Column("uid", Uuid, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    # Beside the specification, because lists filter and order by it.
    Column("model", Text, nullable=False),
    Column("spec", JSONB, nullable=False),
    Column("etag", Text, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
)

# `WHERE organization_id = $1 ORDER BY created_at DESC, agent_id DESC`: the default order of ListAgents.
Index("agents_by_creation", agents.c.organization_id, agents.c.created_at, agents.c.agent_id)
