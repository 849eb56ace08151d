"""Migrations."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from stationmaster_server.db.all_tables import load
from stationmaster_server.db.embedded.cluster import SUPERUSER, Cluster
from stationmaster_server.db.errors import NotMigrated
from stationmaster_server.db.leftovers import leftovers_ddl
from stationmaster_server.db.migrate import migrate, pending, revisions
from stationmaster_server.db.migrations.run import FOLDER
from stationmaster_server.db.partitions import partitions_ddl
from stationmaster_server.db.roles import roles_ddl
from stationmaster_server.db.schema import EXTENSIONS_DDL, security_ddl, triggers_ddl

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
    await create_declared(
        empty_url,
        metadata,
        [*roles_ddl(), *EXTENSIONS_DDL],
        [*triggers_ddl(metadata), *security_ddl(metadata), *partitions_ddl(), *leftovers_ddl()],
    )
    migrated, declared = await catalog(database_url), await catalog(empty_url)
    assert migrated.keys() == declared.keys()
    for kind, facts in declared.items():
        assert facts
        assert migrated[kind] == facts, f"{kind} differ: run scripts/freeze_schema.py (after a release: add a revision)"


def test_revisions_are_those_that_alembic_finds_in_one_line() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    scripts = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions("base", "heads")]
    assert scripts[::-1] == revisions()


async def test_a_start_that_has_nothing_to_migrate_imports_neither_alembic_nor_sqlalchemy(database_url: str) -> None:
    program = f"""
import asyncio, sys
from datetime import timedelta
from stationmaster_server.db import listener, listing, partitions, requests
from stationmaster_server.db.embedded import server
from stationmaster_server.db.engine import Database
from stationmaster_server.db.migrate import migrate

async def main():
    await migrate({database_url!r})
    database = await Database.connect(
        {database_url!r}, pool_size=1, system_pool_size=1, connect_timeout=timedelta(seconds=10)
    )
    await database.close()

asyncio.run(main())
print(sorted({{"alembic", "sqlalchemy"}} & set(sys.modules)))
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


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


async def test_a_database_of_another_checkout_is_refused(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("COMMENT ON TABLE alembic_version IS 'first schema 0123456789abcdef'")
    for look in (pending, migrate):
        with pytest.raises(NotMigrated, match="begin with an empty database"):
            await look(database_url)
    await connection.execute("COMMENT ON TABLE alembic_version IS NULL")  # as copied by `pg_dump --no-comments`
    assert await pending(database_url) == []
    await connection.close()


async def test_a_login_that_may_not_migrate_is_told_what_it_needs(postgres: Cluster, empty_url: str) -> None:
    administrator = await asyncpg.connect(postgres.url(user=SUPERUSER, database="postgres"))
    await administrator.execute("DROP ROLE IF EXISTS plain")
    await administrator.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    await administrator.close()
    login = empty_url.partition("//")[2].partition("@")[0]
    with pytest.raises(NotMigrated, match="owns the database and has CREATEROLE"):
        await migrate(empty_url.replace(login, "plain:plain"))


@pytest.fixture
async def bare_url(postgres: Cluster, empty_url: str) -> str:
    """A database without pgvector."""
    await administer(postgres, "DROP EXTENSION vector")
    return empty_url


async def administer(postgres: Cluster, *statements: str) -> None:
    connection = await asyncpg.connect(postgres.url(user=SUPERUSER, database="empty_database"))
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def test_a_postgresql_without_pgvector_is_told_what_to_install(postgres: Cluster, bare_url: str) -> None:
    await administer(postgres, "ALTER DATABASE empty_database SET extension_control_path = '/nonexistent'")
    with pytest.raises(NotMigrated, match=r"lacks the extension pgvector.*install it.*0\.8 or newer"):
        await migrate(bare_url)


async def test_a_login_that_may_not_make_the_extension_is_told_who_may(bare_url: str) -> None:
    with pytest.raises(NotMigrated, match="an administrator must run CREATE EXTENSION vector in the database"):
        await migrate(bare_url)
    assert await pending(bare_url) == ["0001"]


async def test_an_extension_that_an_administrator_made_is_used(postgres: Cluster, bare_url: str) -> None:
    await administer(postgres, "CREATE EXTENSION vector")
    await migrate(bare_url)
    assert await pending(bare_url) == []


async def test_a_pgvector_that_is_too_old_is_refused(postgres: Cluster, empty_url: str) -> None:
    await administer(postgres, "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with pytest.raises(NotMigrated, match=r"of version 0\.7\.4 here, 0\.8 is needed"):
        await migrate(empty_url)
