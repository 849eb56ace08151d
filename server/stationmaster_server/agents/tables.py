"""The tables of agents, and of the transcripts that the runtime `claude` keeps."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Text, Uuid, text
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

# One conversation as the command line of the Claude Agent SDK keeps it. `project` and `transcript_id` are its own
# names; `subpath` is empty but for what belongs to another transcript.
# `WHERE organization_id = $1 AND project = $2 AND transcript_id = $3 AND subpath = $4`: every read and change of one;
# by its first three columns: all that belongs to one.
agent_transcripts = tenant_table(
    "agent_transcripts",
    Column("project", Text, primary_key=True),
    Column("transcript_id", Text, primary_key=True),
    Column("subpath", Text, primary_key=True),
    Column("last_position", BigInteger, nullable=False, server_default=text("0")),
    Column("size_bytes", BigInteger, nullable=False, server_default=text("0")),
    # Milliseconds of the Unix epoch; grows with every write.
    Column("written_at_ms", BigInteger, nullable=False, server_default=text("0")),
    Column("summary", JSONB),
)

# `WHERE organization_id = $1 AND project = $2 AND transcript_id = $3 AND subpath = $4 ORDER BY position`: a whole one.
agent_transcript_entries = tenant_table(
    "agent_transcript_entries",
    Column("project", Text, primary_key=True),
    Column("transcript_id", Text, primary_key=True),
    Column("subpath", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("uuid", Text),
    # JSON as it was written: JSONB takes no NUL, and nothing looks into it here.
    Column("entry", Text, nullable=False),
)
# `ON CONFLICT`: an entry that is written again is there already. Those without an id are never the same.
Index(
    "agent_transcript_entries_once",
    agent_transcript_entries.c.organization_id,
    agent_transcript_entries.c.project,
    agent_transcript_entries.c.transcript_id,
    agent_transcript_entries.c.subpath,
    agent_transcript_entries.c.uuid,
    unique=True,
)
