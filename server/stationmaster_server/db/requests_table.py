"""The table of request ids (contract rule 7)."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON

from stationmaster_server.db.schema import tenant_table, timestamp

request_ids = tenant_table(
    "request_ids",
    Column("user_id", Uuid, primary_key=True),
    Column("request_id", Uuid, primary_key=True),
    Column("method", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("answer", JSON),  # NULL only while the transaction that makes it is open
    timestamp("created_at", default_now=True),
    # requests.forget_old: DELETE ... WHERE created_at < $1
    Index("request_ids_created_at_idx", "created_at"),
    of_user="user_id",  # an answer holds what only its user may read
)
