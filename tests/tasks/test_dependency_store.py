"""The lock of the graph, and the task that is read under it."""

from __future__ import annotations

import asyncio

from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.tasks import dependency_store
from stationmaster_server.tasks.model import Task

from tests.tasks.sync.changing import Changer
from tests.waiting import until


async def test_who_waited_for_the_graph_reads_the_task_as_it_is_then(database: Database, tenant: Tenant) -> None:
    await Changer(database, tenant, 1, seed=1).create(0)

    async def read() -> Task:
        async with database.system() as tx:
            return await dependency_store.lock_graph_and_share(tx, tenant.organization_id, "task-0")

    async def waits() -> bool:
        async with database.system(autocommit=True) as tx:
            return bool(await tx.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))

    async with database.system() as tx:
        await dependency_store.lock_graph(tx, tenant.organization_id)
        reading = asyncio.create_task(read())
        await until(waits)
        await tx.execute("UPDATE tasks SET description = 'changed meanwhile'")
        assert not reading.done()
    assert (await reading).description == "changed meanwhile"
