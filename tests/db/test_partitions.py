"""Monthly partitions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest
from stationmaster_server.db.all_tables import load
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.partitions import ensure_every_partition, ensure_partitions
from stationmaster_server.db.schema import partitioned_tables

from tests.waiting import until

load()
EVENT = """
INSERT INTO events (organization_id, stream_id, sequence, created_at, kind, body) VALUES ($1, $1, 1, $2, 'x', '{}')
"""


@pytest.mark.parametrize("table", [table.name for table in partitioned_tables()])
async def test_partitions_of_the_months_ahead_are_made_once(database: Database, table: str) -> None:
    async with database.system() as tx:
        assert await ensure_partitions(tx, table, 2) == 3
    async with database.system() as tx:
        assert await ensure_partitions(tx, table, 2) == 0
        assert await ensure_partitions(tx, table, 3) == 1


async def test_every_partitioned_table_gets_its_partitions_by_one_call(database: Database) -> None:
    assert await ensure_every_partition(database, 1) == 2 * len(partitioned_tables())
    assert await ensure_every_partition(database, 1) == 0


async def test_who_writes_to_two_partitioned_tables_is_not_in_a_deadlock_with_the_upkeep(database: Database) -> None:
    async with database.system() as writer:
        await writer.execute("LOCK TABLE events IN ROW EXCLUSIVE MODE")
        upkeep = asyncio.create_task(ensure_every_partition(database, 1))

        async def waits_for_events() -> bool:
            async with database.system(autocommit=True) as tx:
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"
                return bool(await tx.fetchval(waiting))

        await until(waits_for_events)
        await writer.execute("LOCK TABLE audit_events IN ROW EXCLUSIVE MODE")
    assert await upkeep == 2 * len(partitioned_tables())


async def test_rows_go_to_the_partition_of_their_month_and_others_to_the_default(
    database: Database, tenant: Tenant
) -> None:
    async with database.system() as tx:
        await ensure_partitions(tx, "events", 0)
        now = datetime.now(UTC)
        for moment in (now, datetime(2001, 2, 3, tzinfo=UTC)):
            await tx.execute(EVENT, tenant.organization_id, moment)
    async with database.tenant(tenant, read=True) as tx:
        rows = await tx.fetch("SELECT tableoid::regclass::text AS name FROM events ORDER BY created_at")
    assert [row["name"] for row in rows] == ["events_default", now.strftime("events_%Y_%m")]


async def test_a_month_whose_rows_came_first_stays_in_the_default_partition(database: Database, tenant: Tenant) -> None:
    async with database.system() as tx:
        await tx.execute(EVENT, tenant.organization_id, datetime.now(UTC))
    async with database.system() as tx:
        assert await ensure_partitions(tx, "events", 0) == 0


async def test_only_partitioned_tables_and_only_engines_get_partitions(database: Database, tenant: Tenant) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        async with database.system() as tx:
            await ensure_partitions(tx, "organizations", 0)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.tenant(tenant) as tx:
            await ensure_partitions(tx, "events", 0)
