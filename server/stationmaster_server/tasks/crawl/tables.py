"""The tables of crawls: how far each one is, and what became of each URL."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Identity, Index, Integer, LargeBinary, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from stationmaster_server.db.schema import tenant_table, timestamp

# One row for each execution that crawls. Whoever writes a page holds it, so that writes of one crawl follow each other.
# `fence` grows with each start of a crawler: those that started before can write nothing more.
crawl_runs = tenant_table(
    "crawl_runs",
    Column("execution_id", Uuid, primary_key=True),
    Column("fence", Integer, nullable=False),
    Column("seeded", Boolean, nullable=False, server_default=text("false")),
    Column("urls", Integer, nullable=False, server_default=text("0")),
    Column("cookies", JSON, nullable=False, server_default=text("'[]'")),
    timestamp("created_at", default_now=True),
    timestamp("updated_at", default_now=True),
)

# One row for each URL. `taken` is the fence of the crawler that has it in memory. `via`: the redirects that led to it.
crawl_pages = tenant_table(
    "crawl_pages",
    Column("execution_id", Uuid, primary_key=True),
    Column("url", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("host", Text, nullable=False),
    Column("depth", Integer, nullable=False),
    Column("via", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("state", Text, nullable=False, server_default=text("'PENDING'")),
    Column("reason", Text),
    Column("error", Text, nullable=False, server_default=text("''")),
    Column("taken", Integer, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("status_code", Integer),
    Column("size_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("content_type", Text, nullable=False, server_default=text("''")),
    Column("title", Text, nullable=False, server_default=text("''")),
    Column("markdown", Text, nullable=False, server_default=text("''")),
    Column("canonical_url", Text, nullable=False, server_default=text("''")),
    Column("redirect_to", Text, nullable=False, server_default=text("''")),
    Column("duplicate_of", Text, nullable=False, server_default=text("''")),
    Column("content_hash", LargeBinary),
    timestamp("found_at", default_now=True),
    timestamp("fetched_at", nullable=True),
)
# The pages of a crawl in the order in which they were found.
Index(None, crawl_pages.c.organization_id, crawl_pages.c.execution_id, crawl_pages.c.number, unique=True)
# Which page is next.
Index(
    "crawl_pages_pending_idx",
    crawl_pages.c.organization_id,
    crawl_pages.c.execution_id,
    crawl_pages.c.depth,
    crawl_pages.c.number,
    postgresql_where=crawl_pages.c.state == "PENDING",
)
# Whether a text was fetched before.
Index(
    "crawl_pages_hash_idx",
    crawl_pages.c.organization_id,
    crawl_pages.c.execution_id,
    crawl_pages.c.content_hash,
    postgresql_where=crawl_pages.c.state == "FETCHED",
)
