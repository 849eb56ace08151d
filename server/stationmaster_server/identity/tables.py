"""The tables of organizations, users, API keys and quotas."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    ForeignKeyConstraint,
    Index,
    Interval,
    LargeBinary,
    SmallInteger,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from stationmaster_server.db.schema import system_table, tenant_table, timestamp

# What all servers of an installation share and nobody else knows, by purpose.
installation_secrets = system_table(
    "installation_secrets",
    Column("purpose", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
)

organizations = tenant_table(
    "organizations",
    Column("display_name", Text, nullable=False),
    Column("tool_policies", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    # Both or neither.
    Column("webhook_url", Text),
    Column("webhook_secret", LargeBinary),
    Column("revision", BigInteger, nullable=False, server_default="1"),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
)

users = tenant_table(
    "users",
    Column("id", Uuid, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("email", Text, nullable=False, server_default=""),
    Column("role", Text, nullable=False),
    Column("external_subject", Text, nullable=False, server_default=""),
    timestamp("disabled_at", nullable=True),
    Column("tool_policies", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("revision", BigInteger, nullable=False, server_default="1"),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
    ForeignKeyConstraint(["organization_id"], ["organizations.organization_id"]),
)
# CreateUser, UpdateUser: one address, one user.
Index(
    "users_email_key",
    users.c.organization_id,
    text("lower(email)"),
    unique=True,
    postgresql_where=text("email <> ''"),
)
# Authentication by token or certificate: the subject, with or without the organization.
Index(
    "users_external_subject_key",
    users.c.external_subject,
    users.c.organization_id,
    unique=True,
    postgresql_where=text("external_subject <> ''"),
)

api_keys = tenant_table(
    "api_keys",
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("display_name", Text, nullable=False, server_default=""),
    Column("prefix", Text, nullable=False),
    # SHA-256 of the whole secret, which has 256 random bits: nothing slower makes it safer.
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    timestamp("expires_at", nullable=True),
    timestamp("revoked_at", nullable=True),
    timestamp("last_used_at", nullable=True),
    timestamp("created_at", default_now=True),
    ForeignKeyConstraint(["organization_id", "user_id"], ["users.organization_id", "users.id"]),
    # Authentication by key, whatever its organization.
    Index("api_keys_prefix_key", "prefix", unique=True),
    # ListApiKeys of one user.
    Index("api_keys_user_id_idx", "organization_id", "user_id"),
)

# The subject is a user, or the organization itself. NULL: no limit.
quotas = tenant_table(
    "quotas",
    Column("subject_id", Uuid, primary_key=True),
    Column("max_concurrent_sessions", BigInteger),
    Column("max_calls_per_hour", BigInteger),
    Column("max_cost_micros_per_day", BigInteger),
    Column("max_storage_bytes", BigInteger),
    Column("max_users", BigInteger),
    Column("max_tokens_per_day", BigInteger),
    Column("max_tool_calls_per_day", BigInteger),
    Column("max_running_time_per_day", Interval),
    Column("revision", BigInteger, nullable=False, server_default="1"),
    timestamp("updated_at", default_now=True),
)

# What is used is the sum over a subject's shards, so that transactions which need not agree on a limit do not wait for
# each other's row; one of a shard may be negative. What is counted by the day, reserved included, counts only in rows
# of that day.
quota_usage = tenant_table(
    "quota_usage",
    Column("subject_id", Uuid, primary_key=True),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    Column("sessions", BigInteger, nullable=False, server_default="0"),
    Column("day", Date, nullable=False),
    Column("tokens", BigInteger, nullable=False, server_default="0"),
    Column("cost_micros", BigInteger, nullable=False, server_default="0"),
    Column("tool_calls", BigInteger, nullable=False, server_default="0"),
    Column("running_time", Interval, nullable=False, server_default="0"),
    Column("storage_reserved", BigInteger, nullable=False, server_default="0"),
    Column("storage_used", BigInteger, nullable=False, server_default="0"),
)

# Calls that servers have taken in the hour, in blocks; `last_block` tells the taker how many it got.
quota_calls = tenant_table(
    "quota_calls",
    Column("subject_id", Uuid, primary_key=True),
    timestamp("hour"),
    Column("taken", BigInteger, nullable=False),
    Column("last_block", BigInteger, nullable=False),
)
