"""Filters of lists of executions: what they find, and that they read little else."""

from __future__ import annotations

import asyncpg
import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.tasks.execution_row_store import JOINED
from stationmaster_server.tasks.listing_store import LISTING
from stationmaster_server.tasks.model import ExecutionState

COUNT = 20_000
# Of each thousand the first ones have not ended well, and one task has few of all.
_ITEMS = """
INSERT INTO work_items (organization_id, item_id, user_id, kind, subject_id, state, priority, payload, paused)
SELECT $1, gen_random_uuid(), $2, 'task.webhook', gen_random_uuid(),
       CASE g % 1000 WHEN 0 THEN 'DEAD' WHEN 1 THEN 'RUNNING' WHEN 2 THEN 'QUEUED' WHEN 3 THEN 'WAITING'
                     WHEN 4 THEN 'SUSPENDED' WHEN 5 THEN 'QUEUED' WHEN 6 THEN 'WAITING' ELSE 'SUCCEEDED' END,
       g % 5 + 1, '{}', g % 1000 IN (5, 6)
FROM generate_series(1, $3) g
"""
_EXECUTIONS = """
INSERT INTO executions (organization_id, id, user_id, task_id, task_uid, kind, trigger, payload, created_at, blocked)
SELECT i.organization_id, i.item_id, i.user_id, CASE WHEN n < 20 THEN 'rare' WHEN n % 2 = 0 THEN 'often' END,
       i.subject_id, 'webhook', 'MANUAL', '{}', now() - n * interval '10 s', paused
FROM (SELECT *, row_number() OVER () AS n FROM work_items) i
"""
_STATES = {
    ExecutionState.FAILED: 20,
    ExecutionState.RUNNING: 20,
    ExecutionState.QUEUED: 60,
    ExecutionState.BLOCKED: 40,
    ExecutionState.SUCCEEDED: COUNT - 140,
    ExecutionState.CANCELLED: 0,
}


@pytest.fixture
async def many(tenant: Tenant, administrator_url: str) -> None:
    """Many executions that ended well, and some that did not."""
    administrator = await asyncpg.connect(administrator_url)
    await administrator.execute(_ITEMS, tenant.organization_id, tenant.user_id, COUNT)
    await administrator.execute(_EXECUTIONS)
    await administrator.execute("ANALYZE work_items")
    await administrator.execute("ANALYZE executions")
    await administrator.close()


async def found(database: Database, tenant: Tenant, text: str) -> int:
    """How many a filter finds."""
    clause = LISTING.sql(text, "", PageRequest(2 * COUNT), start=2)
    sql = f"SELECT count(*) FROM (SELECT FROM {JOINED} AND {clause.where_sql} ORDER BY {clause.order_sql}) found"
    async with database.tenant(tenant, read=True) as tx:
        return int(await tx.fetchval(sql, tenant.organization_id, *clause.args))


async def pages_read(database: Database, tenant: Tenant, text: str, size: int = 50) -> int:
    """How many pages of the database the first page of a filtered list takes."""
    clause = LISTING.sql(text, "", PageRequest(size), start=2)
    query = f"SELECT e.id FROM {JOINED} AND {clause.where_sql} ORDER BY {clause.order_sql}"
    sql = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}"
    async with database.tenant(tenant, read=True) as tx:
        (plan,) = await tx.fetchval(sql, tenant.organization_id, *clause.args)
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


@pytest.mark.usefixtures("many")
async def test_filters_find_each_execution_by_its_state_and_by_its_task(database: Database, tenant: Tenant) -> None:
    for state, count in _STATES.items():
        assert await found(database, tenant, f'state = "{state}"') == count, state
        assert await found(database, tenant, f'state != "{state}"') == COUNT - count, state
        assert await found(database, tenant, f'NOT state = "{state}"') == COUNT - count, state
    often = COUNT // 2 - 9
    assert await found(database, tenant, 'task = "tasks/rare"') == 19
    assert await found(database, tenant, 'task != "tasks/rare"') == COUNT - 19, "also those without a task"
    assert await found(database, tenant, 'task = "rare" OR task = "executions/rare"') == 0
    assert await found(database, tenant, 'task != "rare"') == COUNT
    assert await found(database, tenant, 'task : "tasks/*"') == 19 + often
    assert await found(database, tenant, 'task : "OFT"') == often
    assert await found(database, tenant, 'task > "tasks/often"') == 19


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    "text",
    [
        'task = "tasks/rare"',
        'task = "tasks/rare" AND state = "FAILED"',
        'task = "tasks/nothing"',
        'state = "RUNNING"',
        'state = "QUEUED"',
        'state = "BLOCKED"',
        'state = "FAILED"',
        'state = "RUNNING" OR state = "QUEUED"',
        '(kind = "crawl") AND state = "FAILED"',
    ],
)
async def test_a_filter_reads_little_more_than_it_finds(database: Database, tenant: Tenant, text: str) -> None:
    assert await pages_read(database, tenant, text) < 500, text
