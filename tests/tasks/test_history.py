"""What a task costs that has run very often: what is asked of it at each due time reads what has not ended, no more."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.tasks import execution_store, schedule_store

ENDED = 20_000
MOST_PAGES = 60
"""Of 8 KiB; all that ended have thousands."""
_ITEMS = """
INSERT INTO work_items (organization_id, item_id, user_id, kind, subject_id, state, priority, payload, follow_up,
                        followed_up, finished_at)
SELECT $1, gen_random_uuid(), $2, 'task.webhook', $3, CASE WHEN g > $4 THEN 'QUEUED' WHEN g % 10 = 0 THEN 'DEAD'
       ELSE 'SUCCEEDED' END, 3, '{}', true, g <= $4, CASE WHEN g <= $4 THEN now() END
FROM generate_series(1, $4 + 3) g
"""
_EXECUTIONS = """
INSERT INTO executions (organization_id, id, user_id, task_id, task_uid, kind, trigger, payload)
SELECT organization_id, item_id, user_id, 'often', subject_id, 'webhook', 'SCHEDULE', '{}' FROM work_items
"""


@pytest.fixture
async def often(tenant: Tenant, administrator_url: str) -> UUID:
    """The uid of a task that has run 20,000 times, of which three executions have not ended."""
    administrator = await asyncpg.connect(administrator_url)
    uid = uuid4()
    await administrator.execute(_ITEMS, tenant.organization_id, tenant.user_id, uid, ENDED)
    await administrator.execute(_EXECUTIONS)
    await administrator.execute("ANALYZE work_items")
    await administrator.execute("ANALYZE executions")
    await administrator.close()
    return uid


async def pages_read(database: Database, sql: str, *args: Any) -> int:
    """How many pages of the database a query takes."""
    async with database.system(autocommit=True) as tx:
        (plan,) = await tx.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *args)
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


async def test_what_has_not_ended_is_found_without_reading_what_has(
    database: Database, tenant: Tenant, often: UUID
) -> None:
    async with database.system(autocommit=True) as tx:
        assert len(await execution_store.open_of(tx, tenant.organization_id, often, scheduled=True)) == 3
        assert await execution_store.open_of(tx, tenant.organization_id, uuid4()) == []
    assert await pages_read(database, execution_store.OPEN, tenant.organization_id, often, True) < MOST_PAGES


async def test_a_new_failure_is_found_without_reading_the_old_ones(
    database: Database, tenant: Tenant, often: UUID, administrator_url: str
) -> None:
    async with database.system(autocommit=True) as tx:
        assert not await schedule_store.has_new_failure(tx, tenant.organization_id, often)
    assert await pages_read(database, schedule_store.NEW_FAILURE, tenant.organization_id, often) < MOST_PAGES
    administrator = await asyncpg.connect(administrator_url)
    await administrator.execute("UPDATE work_items SET state = 'DEAD', finished_at = now() WHERE state = 'QUEUED'")
    await administrator.close()
    async with database.system(autocommit=True) as tx:
        assert await schedule_store.has_new_failure(tx, tenant.organization_id, often)
