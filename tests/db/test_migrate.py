"""Migrations."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from stationmaster_server.db.all_tables import load
from stationmaster_server.db.embedded.cluster import SUPERUSER, Cluster
from stationmaster_server.db.errors import NotMigrated
from stationmaster_server.db.migrate import migrate, pending
from stationmaster_server.db.partitions import partitions_ddl
from stationmaster_server.db.roles import roles_ddl
from stationmaster_server.db.schema import security_ddl

from tests.db.catalog import catalog, create_declared


@pytest.fixture
async def empty_url(postgres: Cluster) -> str:
    name = "empty_database"
    administrator = await asyncpg.connect(postgres.url(user=SUPERUSER, database="postgres"))
    await administrator.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await administrator.execute(f"CREATE DATABASE {name} OWNER stationmaster")
    await administrator.close()
    return postgres.url(database=name)


async def test_the_migrated_schema_equals_the_declared_one(database_url: str, empty_url: str) -> None:
    metadata = load()
    await create_declared(empty_url, metadata, [*roles_ddl()], [*security_ddl(metadata), *partitions_ddl()])
    migrated, declared = await catalog(database_url), await catalog(empty_url)
    assert migrated.keys() == declared.keys()
    for kind, facts in declared.items():
        assert facts
        assert migrated[kind] == facts, kind


async def test_migrating_twice_changes_nothing(database_url: str) -> None:
    before = await catalog(database_url)
    assert await pending(database_url) == []
    await migrate(database_url)
    assert await catalog(database_url) == before


async def test_servers_that_start_at_once_migrate_once(empty_url: str) -> None:
    assert await pending(empty_url) == ["0001"]
    await asyncio.gather(*(migrate(empty_url) for _ in range(4)))
    assert await pending(empty_url) == []


async def test_a_database_newer_than_the_program_is_refused(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()
    for look in (pending, migrate):
        with pytest.raises(NotMigrated, match="9999, which is newer than this program: update it"):
            await look(database_url)


async def test_a_login_that_may_not_migrate_is_told_what_it_needs(postgres: Cluster, empty_url: str) -> None:
    administrator = await asyncpg.connect(postgres.url(user=SUPERUSER, database="postgres"))
    await administrator.execute("DROP ROLE IF EXISTS plain")
    await administrator.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    await administrator.close()
    login = empty_url.partition("//")[2].partition("@")[0]
    with pytest.raises(NotMigrated, match="owns the database and has CREATEROLE"):
        await migrate(empty_url.replace(login, "plain:plain"))
