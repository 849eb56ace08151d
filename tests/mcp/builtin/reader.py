"""A login as the guide makes one, on a database with a shop."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
from stationmaster_server.config.mcp_builtin import McpDatabaseSettings
from stationmaster_server.db.embedded.cluster import SUPERUSER, Cluster

GUIDE = Path(__file__).parents[3] / "docs/guides/mcp-builtin.md"

SHOP = """
CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric(10, 2), placed date, paid boolean);
COMMENT ON TABLE orders IS 'What was bought';
CREATE TABLE lines (order_id int REFERENCES orders, number int, PRIMARY KEY (order_id, number));
CREATE TABLE secrets (secret text);
INSERT INTO orders SELECT n, 'customer ' || n, n * 1.5, DATE '2026-01-01' + n, n % 2 = 0 FROM generate_series(1, 30) n;
CREATE SEQUENCE numbers;
CREATE FUNCTION next_number() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('numbers') $$;
CREATE FUNCTION forget_order(which int) RETURNS int LANGUAGE plpgsql AS
  $$ BEGIN DELETE FROM orders WHERE id = which; RETURN which; END $$;
"""


class Shop:
    """The database, its owner's connection, and the login that reads it."""

    def __init__(self, cluster: Cluster, name: str, reader: str, owner: asyncpg.Connection[asyncpg.Record]) -> None:
        self.cluster = cluster
        self.name = name
        self.reader = reader
        self.owner = owner

    def url(self, login: str | None = None) -> str:
        """The URL for a login whose password is that of the guide."""
        return re.sub("//[^@]*@", f"//{login or self.reader}:choose-one@", self.cluster.url(database=self.name))

    def settings(self, *, url: str | None = None, **others: object) -> McpDatabaseSettings:
        """Settings for the reader."""
        return McpDatabaseSettings.model_validate(
            {"url": url or self.url(), "organizations": ["*"], "query_timeout": "5s", **others}
        )


def statements(reader: str, database: str) -> list[str]:
    """What the guide tells to run, for a login and a database of other names."""
    block = re.search(r"```sql\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert block is not None
    text = block[1].replace("stationmaster_reader", reader).replace("DATABASE shop", f"DATABASE {database}")
    return [statement for statement in text.split(";") if statement.strip()]


@asynccontextmanager
async def open_shop(cluster: Cluster) -> AsyncIterator[Shop]:
    """A shop and its reader, gone afterwards."""
    name, reader = f"shop_{uuid4().hex}", f"reader_{uuid4().hex}"
    superuser = await asyncpg.connect(cluster.url(user=SUPERUSER, database="postgres"))
    await superuser.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
    owner = await asyncpg.connect(cluster.url(user=SUPERUSER, database=name))
    try:
        await owner.execute(SHOP)
        for statement in statements(reader, name):
            await owner.execute(statement)
        yield Shop(cluster, name, reader, owner)
    finally:
        await owner.close()
        await superuser.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await superuser.execute(f"DROP ROLE IF EXISTS {reader}")
        await superuser.close()
