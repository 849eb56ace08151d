"""The tables of search by meaning: documents, their pieces, and the vectors of tasks."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSVECTOR

from stationmaster_server.db.schema import Vector, tenant_table, timestamp

_DIMENSIONS = 384

# One row for each source that an execution processed. It is found once it is `ready`: then all its pieces are there.
documents = tenant_table(
    "documents",
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("execution_id", Uuid, nullable=False),
    Column("source", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("pieces", Integer, nullable=False, server_default=text("0")),
    Column("ready", Boolean, nullable=False, server_default=text("false")),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
)
# The earlier documents of a source.
Index(None, documents.c.organization_id, documents.c.user_id, documents.c.source)
# Those that another encoder embedded.
Index("documents_encoder_idx", documents.c.encoder, postgresql_where=documents.c.ready)
# Those that nobody finished.
Index("documents_unfinished_idx", documents.c.updated_at, postgresql_where=text("NOT ready"))

# `encoder` made the vector. The headings are words of every piece below them.
pieces = tenant_table(
    "pieces",
    Column("document_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("text", Text, nullable=False),
    Column("headings", ARRAY(Text), nullable=False),
    Column("start_offset", Integer, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("vector", Vector(_DIMENSIONS), nullable=False),
    Column("context", Text, nullable=False),
    Column(
        "words",
        TSVECTOR,
        Computed(
            "setweight(to_tsvector('simple', left(context, 5000)), 'A')"
            " || setweight(to_tsvector('simple', left(text, 200000)), 'B')",
            persisted=True,
        ),
    ),
    ForeignKeyConstraint(
        ["organization_id", "document_id"], ["documents.organization_id", "documents.id"], ondelete="CASCADE"
    ),
)
# SearchTasks: by words; by meaning, of an organization or a user with many pieces; of one with few.
Index("pieces_words_idx", pieces.c.words, postgresql_using="gin")
Index("pieces_vector_idx", pieces.c.vector, postgresql_using="hnsw", postgresql_ops={"vector": "vector_cosine_ops"})
Index(None, pieces.c.organization_id, pieces.c.user_id)

# What a task's text means. Tasks of one organization are few: they are compared one by one.
task_vectors = tenant_table(
    "task_vectors",
    Column("task_id", Text, primary_key=True),
    Column("etag", Text, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("vector", Vector(_DIMENSIONS), nullable=False),
    timestamp("created_at", default_now=True),
    ForeignKeyConstraint(
        ["organization_id", "task_id"], ["tasks.organization_id", "tasks.task_id"], ondelete="CASCADE"
    ),
)
