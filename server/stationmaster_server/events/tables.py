"""The tables of the event log."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON

from stationmaster_server.db.schema import tenant_table, timestamp

# One row for each stream, locked by whoever writes to it: that is what makes sequences free of holes.
# `fence` is the lease token whose writer may write; NULL: none. `last_flush` and `flush_sequence` (the stream's
# last sequence after that flush) tell a flush that is repeated after an outage that its first try was committed.
streams = tenant_table(
    "streams",
    Column("stream_id", Uuid, primary_key=True),
    Column("last_sequence", BigInteger, nullable=False, server_default="0"),
    Column("fence", Uuid),
    Column("last_flush", Uuid),
    Column("flush_sequence", BigInteger),
    timestamp("created_at", default_now=True),
)

# Read by (organization, stream, sequence > cursor). `body` is json, not jsonb: a replay is equal byte for byte.
# `created_at` is in the key because partitions are by month; the lock on the stream's row keeps sequences unique.
events = tenant_table(
    "events",
    Column("stream_id", Uuid, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    timestamp("created_at", primary_key=True),
    Column("kind", Text, nullable=False),
    Column("body", JSON, nullable=False),
    partition_by_month="created_at",
)
