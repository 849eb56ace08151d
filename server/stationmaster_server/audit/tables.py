"""The tables of the audit trail."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Index, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON

from stationmaster_server.db.schema import tenant_table, timestamp

# `created_at` is the time within `id` (a UUIDv7), so that an event is found by its id through the primary key, in one
# partition; ListAuditEvents reads the same key backwards.
audit_events = tenant_table(
    "audit_events",
    timestamp("created_at", primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("category", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("on_behalf_of", Text, nullable=False),
    Column("api_key", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("details", JSON, nullable=False),
    partition_by_month="created_at",
)

# Events that have no place yet: put here by the transaction that writes the event, taken by the sequencer. A row that
# is committed late is still here, so none is skipped. `ordinal` respects cause and effect: what began after another
# event's commit has the greater one.
audit_queue = tenant_table(
    "audit_queue",
    Column("ordinal", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid, nullable=False),
    timestamp("created_at"),
    # The sequencer's oldest rows, over all organizations.
    Index("audit_queue_ordinal_idx", "ordinal"),
)

# The last sequence of each organization.
audit_heads = tenant_table("audit_heads", Column("last_sequence", BigInteger, nullable=False))

# The place of each event, in the order of commits, from 1 without holes; `created_at` is the event's, to find it by.
audit_positions = tenant_table(
    "audit_positions",
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Uuid, nullable=False),
    timestamp("created_at"),
    # GetAuditEvent, ListAuditEvents: the place of an event.
    Index("audit_positions_event_id_idx", "organization_id", "event_id", unique=True),
)
