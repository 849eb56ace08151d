"""Row-level security by raw SQL, over every table that says it is a tenant's: a new table is covered without a line."""

from __future__ import annotations

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import Table
from stationmaster_server.db.all_tables import load
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.roles import APP_ROLE
from stationmaster_server.db.schema import metadata, tenant_tables
from stationmaster_server.db.transaction import Transaction

from tests.fixtures.database import make_tenant

load()


@pytest_asyncio.fixture
async def filled(administrator_url: str, tenant: Tenant) -> Tenant:
    """A tenant with a row in every table."""
    connection = await asyncpg.connect(administrator_url)
    await connection.execute("SET session_replication_role = replica")  # no foreign keys
    for table in tenant_tables():
        await fill(connection, table, tenant)
    await connection.close()
    return tenant


async def fill(connection: asyncpg.Connection[asyncpg.Record], table: Table, tenant: Tenant) -> None:
    """One row of the organization with whatever the columns take."""
    columns = await connection.fetch(
        "SELECT attname, atttypid::regtype::text AS type FROM pg_attribute"
        " WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
        table.name,
    )
    values = {column["attname"]: any_value(column["type"]) for column in columns}
    values["organization_id"] = f"'{tenant.organization_id}'"
    if of_user := table.info.get("of_user"):
        values[of_user] = f"'{tenant.user_id}'"
    await connection.execute(
        f"INSERT INTO {table.name} ({', '.join(values)}) OVERRIDING SYSTEM VALUE"
        f" VALUES ({', '.join(values.values())}) ON CONFLICT DO NOTHING"
    )


async def count(tx: Transaction, table: Table, tenant: Tenant) -> int:
    sql = f"SELECT count(*) FROM {table.name} WHERE organization_id = $1"
    found: int = await tx.fetchval(sql, tenant.organization_id)
    return found


def any_value(kind: str) -> str:
    if kind.endswith("[]"):
        return f"'{{}}'::{kind}"
    samples = {
        "uuid": f"'{new_id()}'",
        "json": "'{}'",
        "jsonb": "'{}'",
        "interval": "'1 s'",
        "timestamp with time zone": "now()",
        "date": "now()",
        "boolean": "true",
        "bytea": "'\\x00'",
        "vector": "array_fill(0.1::real, ARRAY[384])",
    }
    return samples.get(kind, "'1'") + f"::{kind}"


async def test_a_tenant_sees_and_changes_its_own_rows_only(database: Database, filled: Tenant) -> None:
    other = await make_tenant(database)
    for table in tenant_tables():
        async with database.tenant(other, read=True) as tx:
            assert await count(tx, table, filled) == 0, table.name
        async with database.tenant(other) as tx:
            tx.audited = True
            tag = await tx.execute(f"DELETE FROM {table.name} WHERE organization_id = $1", filled.organization_id)
            assert tag == "DELETE 0", table.name
        async with database.tenant(filled, read=True) as tx:
            assert await count(tx, table, filled) >= 1, table.name


async def test_a_tenant_cannot_write_a_row_of_another_one(database: Database, filled: Tenant) -> None:
    other = await make_tenant(database)

    async def give_away(table: Table) -> None:
        sql = f"UPDATE {table.name} SET organization_id = $2 WHERE organization_id = $1"
        async with database.tenant(filled) as tx:
            await tx.execute(sql, filled.organization_id, other.organization_id)

    for table in tenant_tables():
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f'row-level security .* "{table.name}"'):
            await give_away(table)


async def test_without_a_tenant_the_role_of_the_server_sees_no_row(database_url: str, filled: Tenant) -> None:
    connection = await asyncpg.connect(database_url, server_settings={"role": APP_ROLE})
    for _ in range(2):
        for table in tenant_tables():
            assert await connection.fetchval(f"SELECT count(*) FROM {table.name}") == 0, table.name
        # Once set, a setting is reset to the empty text, not to NULL.
        await connection.execute("SET stationmaster.organization = ''")
    await connection.close()


async def test_the_engines_see_the_rows_of_every_tenant(database: Database, filled: Tenant) -> None:
    async with database.system() as tx:
        for table in tenant_tables():
            assert await count(tx, table, filled) >= 1, table.name


async def test_what_is_no_tenants_is_closed_to_tenants(database: Database, tenant: Tenant) -> None:
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch(
            "SELECT relname FROM pg_class c"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
            " AND has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')",
            APP_ROLE,
        )
    assert {row["relname"] for row in rows} == {table.name for table in tenant_tables()}


def test_every_table_says_whether_it_is_a_tenants_and_tenants_keys_begin_with_the_organization() -> None:
    for table in metadata.sorted_tables:
        assert "tenant" in table.info, f"declare {table.name} by tenant_table or system_table"
    for table in tenant_tables():
        assert next(iter(table.primary_key.columns)).name == "organization_id"
