"""Tables and indexes are looked after, however long that takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from stationmaster_server.db.connection import Connection
from stationmaster_server.db.engine import Database
from stationmaster_server.db.leftovers import drop_leftovers
from stationmaster_server.db.partitions import ensure_every_partition
from stationmaster_server.maintenance import index_store
from stationmaster_server.maintenance.model import BY_DEFAULT, Figures
from stationmaster_server.maintenance.service import view_of
from stationmaster_server.maintenance.services.indexes import IndexOptimization

from tests.waiting import until

INDEX = "pieces_vector_idx"
LITTLE = 1.0
"""Seconds: whoever waits for a whole table has all others wait behind it."""


@pytest_asyncio.fixture
async def superuser(administrator_url: str) -> AsyncIterator[Any]:
    """Whom nothing is refused."""
    connection = await asyncpg.connect(administrator_url)
    yield connection
    await connection.close()


async def optimized(database: Database) -> dict[str, list[str]]:
    return dict(await IndexOptimization(database)._optimize(everything=True))


async def test_no_statement_is_ended_by_the_limit_of_calls(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, vacuum = list[str](), index_store.vacuum

    async def noted(connection: Connection, table: str) -> None:
        limits.append(await connection.fetchval("SHOW statement_timeout"))
        await vacuum(connection, table)

    monkeypatch.setattr(index_store, "vacuum", noted)
    done = await IndexOptimization(database)._optimize(everything=True)
    assert done["tables"]
    assert set(limits) == {"0"}


def test_settings_that_another_version_stored_are_shown_and_hide_nothing(database: Database) -> None:
    service = IndexOptimization(database)
    stored = replace(BY_DEFAULT, own={"interval_hours": 100_000, "gone": 1})
    shown = view_of(service, stored, Figures(), [], 0).own_settings
    assert (shown["interval_hours"], shown["gone"], shown["reindex_bloat"]) == (100_000, 1, 4.0)


async def test_every_partition_is_vacuumed(database: Database, superuser: Any) -> None:
    made = await ensure_every_partition(database, 1)
    done = await optimized(database)
    partitions = [
        f"public.{row[0]}"
        for row in await superuser.fetch(
            """SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p
               ON p.oid = i.inhparent AND p.relkind = 'p' WHERE c.relkind = 'r'"""
        )
    ]
    assert len(partitions) == made + 2  # and the default ones
    assert set(partitions) <= set(done["tables"])
    assert done["skipped"] == []
    never = "SELECT 'public.' || relname FROM pg_stat_user_tables WHERE last_vacuum IS NULL AND schemaname = 'public'"
    assert {row[0] for row in await superuser.fetch(never)} & set(partitions) == set()


async def test_no_partition_is_vacuumed_twice_and_the_planner_knows_the_whole(
    database: Database, superuser: Any
) -> None:
    await superuser.execute("VACUUM FREEZE events")
    before = await superuser.fetchval("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'events_default'")
    done = await optimized(database)
    assert not {"public.events", "public.audit_events"} & set(done["tables"])
    figures = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'events_default'"
    assert await superuser.fetchval(figures) == before + 1
    analyzed = "SELECT relname FROM pg_stat_user_tables WHERE analyze_count > 0"
    assert {"events", "audit_events", "events_default"} <= {row[0] for row in await superuser.fetch(analyzed)}


async def test_tables_of_others_are_neither_taken_for_ours_nor_told_to_be_done(
    database: Database, superuser: Any
) -> None:
    await superuser.execute("CREATE SCHEMA other")
    for table in ("other.tasks", "other.elsewhere", "public.theirs"):
        await superuser.execute(f"CREATE TABLE {table} AS SELECT 1 AS number")
    done = await optimized(database)
    assert "public.tasks" in done["tables"]
    assert [name for name in done["tables"] if name.startswith("other.") or "theirs" in name] == []
    assert done["skipped"] == ["public.theirs"]
    found = await superuser.fetch("SELECT relid::regclass::text FROM pg_stat_user_tables WHERE last_vacuum IS NOT NULL")
    assert {row[0] for row in found} & {"other.tasks", "other.elsewhere", "theirs"} == set()
    assert len(done["tables"]) == len(set(done["tables"]))


async def indexes(superuser: Any) -> list[str]:
    """Those that are, or are to be, the index of vectors."""
    rows = await superuser.fetch("SELECT relname FROM pg_class WHERE relname ^@ $1 ORDER BY 1", INDEX)
    return [row[0] for row in rows]


async def test_what_an_ended_reindex_left_is_dropped_and_one_under_way_is_not(
    database: Database, superuser: Any, administrator_url: str
) -> None:
    writer, reindexing = await asyncpg.connect(administrator_url), await asyncpg.connect(administrator_url)
    try:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("LOCK TABLE pieces IN ROW EXCLUSIVE MODE")  # which a reindex waits for
        under_way = asyncio.create_task(reindexing.execute(f"REINDEX INDEX CONCURRENTLY {INDEX}"))

        async def begun() -> bool:
            return await indexes(superuser) == [INDEX, f"{INDEX}_ccnew"]

        await until(begun)
        engines = await database.open_dedicated()
        assert await asyncio.wait_for(drop_leftovers(engines), LITTLE) == []
        assert await begun()
        await superuser.execute("SELECT pg_cancel_backend($1)", reindexing.get_server_pid())
        with pytest.raises(asyncpg.QueryCanceledError):
            await under_way
        assert await asyncio.wait_for(drop_leftovers(engines), LITTLE) == []  # somebody writes
        await engines.close()
        await transaction.rollback()
        assert await begun()
        assert (await optimized(database))["dropped"] == [f"public.{INDEX}_ccnew"]
        assert await indexes(superuser) == [INDEX]
        assert (await optimized(database))["dropped"] == []
    finally:
        await writer.close()
        await reindexing.close()
