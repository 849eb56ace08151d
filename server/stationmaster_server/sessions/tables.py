"""The tables of sessions; beside each index, the query that needs it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    ForeignKeyConstraint,
    Index,
    Integer,
    Interval,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, TSVECTOR

from stationmaster_server.db.schema import Vector, tenant_table, timestamp

_DIMENSIONS = 384


def _usage() -> list[Column[Any]]:
    counters = ("input_tokens", "output_tokens", "cached_input_tokens", "cost_micros", "model_calls", "tool_calls")
    return [
        *(Column(name, BigInteger, nullable=False, server_default=text("0")) for name in counters),
        Column("cost_estimated", Boolean, nullable=False, server_default=text("false")),
        Column("running_time", Interval, nullable=False, server_default=text("'0'")),
    ]


sessions = tenant_table(
    "sessions",
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_reason", Text, nullable=False, server_default=text("''")),
    Column("agent_id", Text, nullable=False, server_default=text("''")),
    Column("spec", JSONB, nullable=False),
    Column("tool_policies", JSONB, nullable=False),
    Column("limits", JSONB, nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("idle_timeout", Interval),
    Column("parent_session_id", Uuid),
    Column("parent_message", Integer),
    Column("granted_tools", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    # Of its limits: how many times somebody allowed as much once more.
    Column("portions", JSONB, nullable=False, server_default=text("'{}'")),
    Column("message_count", Integer, nullable=False, server_default=text("0")),
    Column("last_message", Integer, nullable=False, server_default=text("0")),
    # Up to which its messages have vectors, and by which encoder; empty: by several.
    Column("embedded_message", Integer, nullable=False, server_default=text("0")),
    Column("embedded_by", Text, nullable=False, server_default=text("''")),
    Column("current_turn_id", Uuid),
    Column("version", Integer, nullable=False, server_default=text("1")),
    *_usage(),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
)
# ListSessions of a user, newest first.
Index(None, sessions.c.organization_id, sessions.c.user_id, sessions.c.created_at, sessions.c.id)
# ListSessions of an organization's administrators.
Index(None, sessions.c.organization_id, sessions.c.created_at, sessions.c.id)
# DeleteAgent asks whether open sessions name the agent.
Index(None, sessions.c.organization_id, sessions.c.agent_id, postgresql_where=sessions.c.agent_id != "")
# The clean-up of idle sessions looks for the longest idle.
Index("sessions_idle_idx", sessions.c.updated_at, postgresql_where=sessions.c.state == "ACTIVE")
# Those whose messages lack vectors.
Index(
    "sessions_unembedded_idx",
    sessions.c.organization_id,
    sessions.c.id,
    postgresql_where=sessions.c.last_message > sessions.c.embedded_message,
)

turns = tenant_table(
    "turns",
    Column("id", Uuid, primary_key=True),
    Column("session_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    # The message of a turn that waits in the queue; it becomes a row of `messages` when the turn begins.
    Column("input_text", Text, nullable=False),
    Column("user_message", Integer, nullable=False, server_default=text("0")),
    Column("recovery", Text, nullable=False),
    Column("ending", Text, nullable=False, server_default=text("''")),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("error_message", Text, nullable=False, server_default=text("''")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("step", Integer, nullable=False, server_default=text("1")),
    # Of its limits: how many times somebody allowed as much once more.
    Column("portions", JSONB, nullable=False, server_default=text("'{}'")),
    # What its instructions come from, while it runs: should its server die, another tells what the answer so far is of.
    Column("prompt_version", Text, nullable=False, server_default=text("''")),
    Column("prompt_variant", Text, nullable=False, server_default=text("''")),
    # Until when the turn may run by the running time that is set aside for it, and the day of whose quota that is.
    timestamp("paid_until", nullable=True),
    Column("paid_on", Date),
    Column("first_sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("last_sequence", BigInteger, nullable=False, server_default=text("0")),
    *_usage(),
    timestamp("created_at", default_now=True),
    timestamp("started_at", nullable=True),
    timestamp("finished_at", nullable=True),
    # Whether the deltas are gone that its messages stand for.
    Column("compacted", Boolean, nullable=False, server_default=text("false")),
    ForeignKeyConstraint(["organization_id", "session_id"], ["sessions.organization_id", "sessions.id"]),
)
# ListTurns; and the open turns of a session, oldest first.
Index(None, turns.c.organization_id, turns.c.session_id, turns.c.created_at, turns.c.id)
# The sweep of turns that are open although their work has ended.
Index("turns_open_idx", turns.c.created_at, postgresql_where=turns.c.finished_at.is_(None))
# Those whose deltas are still there, the longest ended first.
Index("turns_to_compact_idx", turns.c.finished_at, postgresql_where=text("finished_at IS NOT NULL AND NOT compacted"))

messages = tenant_table(
    "messages",
    Column("session_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("turn_id", Uuid),
    Column("role", Text, nullable=False),
    Column("parts", JSON, nullable=False),
    # What SearchMessages looks through: the text parts.
    Column("text", Text, nullable=False, server_default=text("''")),
    Column("search", TSVECTOR, Computed("to_tsvector('simple', left(text, 200000))", persisted=True)),
    Column("interrupted", Boolean, nullable=False, server_default=text("false")),
    Column("provenance", JSON),
    Column("first_delta", BigInteger, nullable=False, server_default=text("0")),
    Column("last_delta", BigInteger, nullable=False, server_default=text("0")),
    timestamp("created_at", default_now=True),
    ForeignKeyConstraint(["organization_id", "session_id"], ["sessions.organization_id", "sessions.id"]),
)
# SearchMessages.
Index(None, messages.c.search, postgresql_using="gin")
# The memory window begins with the newest summary, if there is one.
Index(
    "messages_summary_idx",
    messages.c.organization_id,
    messages.c.session_id,
    messages.c.number,
    postgresql_where=messages.c.role == "SYSTEM",
)

# What a message's text means: a vector for each piece of it, of `length` characters from `start_offset` on.
message_vectors = tenant_table(
    "message_vectors",
    Column("session_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("piece", Integer, primary_key=True, autoincrement=False),
    Column("user_id", Uuid, nullable=False),
    Column("start_offset", Integer, nullable=False),
    Column("length", Integer, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("vector", Vector(_DIMENSIONS), nullable=False),
    ForeignKeyConstraint(
        ["organization_id", "session_id", "number"],
        ["messages.organization_id", "messages.session_id", "messages.number"],
        ondelete="CASCADE",
    ),
)
# SearchMessages by meaning: of an organization or a user with many pieces; of one with few.
Index(
    "message_vectors_vector_idx",
    message_vectors.c.vector,
    postgresql_using="hnsw",
    postgresql_ops={"vector": "vector_cosine_ops"},
)
Index(None, message_vectors.c.organization_id, message_vectors.c.user_id)

tool_calls = tenant_table(
    "tool_calls",
    Column("turn_id", Uuid, primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("call_id", Text, primary_key=True),
    Column("session_id", Uuid, nullable=False),
    Column("tool", Text, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("content", Text, nullable=False, server_default=text("''")),
    Column("is_error", Boolean, nullable=False, server_default=text("false")),
    timestamp("started_at", default_now=True),
    timestamp("finished_at", nullable=True),
)

permission_requests = tenant_table(
    "permission_requests",
    Column("id", Uuid, primary_key=True),
    Column("session_id", Uuid, nullable=False),
    Column("turn_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("step", Integer, nullable=False),
    Column("call_id", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("arguments", JSON, nullable=False),
    # The limit that the turn waits at, instead of a call.
    Column("limit_name", Text),
    Column("limit_value", BigInteger),
    Column("used_value", BigInteger),
    Column("state", Text, nullable=False),
    Column("decision", Text),
    Column("message", Text, nullable=False, server_default=text("''")),
    Column("edited_arguments", JSON),
    Column("resolved_by", Uuid),
    Column("on_timeout", Text, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("resolved_at", nullable=True),
    timestamp("expires_at", nullable=True),
)
# ListPermissionRequests of a session.
Index(None, permission_requests.c.organization_id, permission_requests.c.session_id, permission_requests.c.created_at)
# The requests of a turn, when it goes on.
Index(None, permission_requests.c.organization_id, permission_requests.c.turn_id)
# The sweep of requests whose deadline has passed.
Index(
    "permission_requests_due_idx",
    permission_requests.c.expires_at,
    postgresql_where=permission_requests.c.state == "PENDING",
)
