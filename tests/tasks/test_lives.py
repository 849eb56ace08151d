"""The newest execution of a task decides, and a task has no other life than its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest_asyncio
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.tasks import dependency_store, execution_store
from stationmaster_server.tasks.execution_store import NewRow
from stationmaster_server.tasks.model import DependencyState, FailurePolicy, Spec, Trigger
from stationmaster_server.tasks.schedule_model import Schedule
from stationmaster_server.tasks.work import new_work

from tests.tasks.firers import Clock, Firer, firer

if TYPE_CHECKING:
    from uuid import UUID

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
EVERY_MINUTE = Schedule(cron="* * * * *")


@pytest_asyncio.fixture
async def clock() -> Clock:
    return Clock(NOON)


@pytest_asyncio.fixture
async def server(database_url: str, clock: Clock) -> AsyncIterator[Firer]:
    async with firer(database_url, clock) as one:
        yield one


async def submit_at_once(server: Firer, tenant: Tenant, task_id: str, ids: list[UUID]) -> None:
    """Executions of a task that are as old as each other, as those of one backfill are."""
    task = await server.get(tenant, task_id)
    async with server.database.system() as tx:
        works = [new_work(tenant, Spec("steered", {}), item_id, "test", task=task) for item_id in ids]
        await server.services.queue.submit_many(tx, works)
        rows = [NewRow(item_id, {}, {}, {}, (), "steered", "up", task.uid) for item_id in ids]
        await execution_store.insert(tx, tenant.organization_id, tenant.user_id, Trigger.BACKFILL, rows)


async def test_of_executions_that_were_submitted_at_once_the_last_is_the_newest(server: Firer, tenant: Tenant) -> None:
    for task_id in ("up", "down"):
        await server.create(tenant, task_id, EVERY_MINUTE)
    ids = [new_id() for _ in range(20)]
    await submit_at_once(server, tenant, "up", [ids[-1], *ids[:-1]])
    async with server.database.system() as tx:
        await dependency_store.insert(tx, tenant.organization_id, "down", "up", FailurePolicy.BLOCK)
        await tx.execute("UPDATE work_items SET state = 'DEAD', finished_at = now() WHERE item_id = $1", ids[-1])
        (edge,) = await dependency_store.upstream(tx, tenant.organization_id, ["down"])
    assert (await server.get(tenant, "up")).last_execution_id == ids[-1]
    assert edge.state is DependencyState.FAILED
