"""The tables of the audit trail."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Identity, Index, Integer, LargeBinary, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSON

from stationmaster_server.db.schema import system_table, tenant_table, timestamp

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
    # 244 random bits, so that nobody finds a body that was deleted by trying what it may have been.
    Column(
        "salt",
        LargeBinary,
        nullable=False,
        server_default=text("uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())"),
    ),
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

# The Merkle tree of each organization: its size, which is the last sequence, and the roots of the complete subtrees
# that it consists of (`merkle.Frontier`).
audit_heads = tenant_table(
    "audit_heads",
    Column("last_sequence", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
)

# The place of each event, in the order of commits, from 1 without holes; `created_at` is the event's, to find it by.
# This, which its leaf is made of, stays when retention deletes the event: `commitment` is SHA-256 of its salt and body.
audit_positions = tenant_table(
    "audit_positions",
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Uuid, nullable=False),
    timestamp("created_at"),
    Column("commitment", LargeBinary, nullable=False),
    # GetAuditEvent, ListAuditEvents: the place of an event.
    Index("audit_positions_event_id_idx", "organization_id", "event_id", unique=True),
)

# The nodes of the trees: a tile of level n has the hashes of up to 32 neighbouring nodes that are 5n above the leaves;
# those between are computed from them (ADR 260).
audit_tiles = tenant_table(
    "audit_tiles",
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

# The newest checkpoint of each organization, and the newest one that witnesses cosigned.
audit_checkpoints = tenant_table(
    "audit_checkpoints",
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
    timestamp("signed_at", default_now=True),
    Column("cosigned_size", BigInteger, nullable=False, server_default=text("0")),
    Column("cosigned_note", Text, nullable=False, server_default=text("''")),
    # What was shown to witnesses and copied, and when it may be again: whoever sets that does it.
    Column("published_size", BigInteger, nullable=False, server_default=text("0")),
    timestamp("publish_after", default_now=True),
)

# The last size that each witness is known to have cosigned.
audit_witnesses = tenant_table(
    "audit_witnesses",
    Column("witness", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
)

# The public keys that checkpoints are, and were, signed with. One signs.
audit_keys = system_table(
    "audit_keys",
    Column("public_key", LargeBinary, primary_key=True),
    Column("is_active", Boolean, nullable=False),
    timestamp("created_at", default_now=True),
    timestamp("retired_at", nullable=True),
    Index("audit_keys_active_key", "is_active", unique=True, postgresql_where=text("is_active")),
)
