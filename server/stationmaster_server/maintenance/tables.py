"""The tables of background services and of servers. All belong to the installation, not to an organization."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, Interval, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from stationmaster_server.db.schema import system_table, timestamp

# What operators changed; a service without a row goes by its defaults.
background_services = system_table(
    "background_services",
    Column("service_id", Text, primary_key=True),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("pause_reason", Text, nullable=False, server_default=text("''")),
    Column("interval", Interval),
    Column("max_failures", Integer),
    Column("retry_delay", Interval),
    Column("alert_errors_per_hour", Integer),
    Column("alert_run_time", Interval),
    Column("alert_memory_growth_bytes", BigInteger),
    Column("alert_handle_growth", Integer),
    Column("own", JSON, nullable=False, server_default=text("'{}'")),
    Column("etag", Uuid, nullable=False),
    timestamp("updated_at", default_now=True),
)

# The lease of a service that runs once for all servers, and when it is due.
background_leases = system_table(
    "background_leases",
    Column("service_id", Text, primary_key=True),
    timestamp("due_at", default_now=True),
    Column("token", Uuid),
    timestamp("expires_at", nullable=True),
    Column("failures_in_a_row", Integer, nullable=False, server_default=text("0")),
    # The kinds of faults that somebody was told of.
    Column("told", ARRAY(Text), nullable=False, server_default=text("'{}'")),
)

# A server process. One that stops leaves its figures to the row of no server, whose id is all zeros; one that died
# does so a day later, for it may only have been away.
servers = system_table(
    "servers",
    Column("server_id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    # What makes its vectors.
    Column("encoder", Text, nullable=False, server_default=text("''")),
    # The encryption keys of credentials that it has.
    Column("encryption_keys", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("resources", JSON, nullable=False),
    timestamp("started_at", default_now=True),
    timestamp("seen_at", default_now=True),
)

# What each service did on each server.
background_figures = system_table(
    "background_figures",
    Column("service_id", Text, primary_key=True),
    Column("server_id", Uuid, primary_key=True),
    Column("state", Text, nullable=False),
    Column("completed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("retried", BigInteger, nullable=False),
    Column("restarted", BigInteger, nullable=False),
    Column("busy_seconds", Float, nullable=False),
    Column("failures_in_a_row", Integer, nullable=False),
    timestamp("last_run_at", nullable=True),
    timestamp("last_success_at", nullable=True),
    Column("last_error", Text, nullable=False),
    timestamp("last_error_at", nullable=True),
    Column("recent_seconds", Float, nullable=False),
    Column("memory_growth_bytes", BigInteger, nullable=False),
    Column("handle_growth", Integer, nullable=False),
)

# Failures of the last day.
background_errors = system_table(
    "background_errors",
    Column("id", Uuid, primary_key=True),
    Column("service_id", Text, nullable=False),
    timestamp("at", default_now=True),
    Column("error", Text, nullable=False),
)
# How many errors a service had within an hour; those that are old enough to be forgotten.
Index("background_errors_service_idx", background_errors.c.service_id, background_errors.c.at)
Index("background_errors_at_idx", background_errors.c.at)
