"""What follows from ends, and from schedules, is done for each organization, whatever holds up another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from stationmaster_server.db.model import Tenant
from stationmaster_server.identity.system import system_caller
from stationmaster_server.tasks import dependency_store
from stationmaster_server.tasks.dependencies import Dependencies
from stationmaster_server.tasks.follow_up import FollowUp
from stationmaster_server.tasks.model import Concurrency, FailurePolicy, Options
from stationmaster_server.tasks.schedule_model import Schedule
from stationmaster_server.work import key_store
from stationmaster_server.work.key_store import Key

from tests.fixtures.database import make_tenant
from tests.tasks.firers import Clock, Firer, firer

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
EVERY_MINUTE = Schedule(cron="* * * * *")


@pytest_asyncio.fixture
async def clock() -> Clock:
    return Clock(NOON)


@pytest_asyncio.fixture
async def one(database_url: str, clock: Clock) -> AsyncIterator[Firer]:
    async with firer(database_url, clock) as server:
        yield server


async def ended(server: Firer, clock: Clock, tenant: Tenant, count: int) -> None:
    """Executions of a task that have just ended."""
    clock.at = NOON
    await server.create(tenant, "often", EVERY_MINUTE)
    for _ in range(count):
        clock.at += timedelta(minutes=1)
        await server.firing.fire_due()
        async with server.database.system() as tx:
            await tx.execute("UPDATE work_items SET state = 'SUCCEEDED', finished_at = now() WHERE follow_up")


async def followed_up(server: Firer, tenant: Tenant) -> int:
    async with server.database.system(autocommit=True) as tx:
        sql = "SELECT count(*) FROM work_items WHERE organization_id = $1 AND followed_up"
        return int(await tx.fetchval(sql, tenant.organization_id))


async def test_an_organization_whose_graph_is_held_does_not_hold_up_the_ends_of_others(
    one: Firer, clock: Clock, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stationmaster_server.tasks.follow_up._BATCH", 2)
    other = await make_tenant(one.database)
    await ended(one, clock, tenant, 3)  # the oldest, and more than one look finds
    await ended(one, clock, other, 1)
    follow_up = FollowUp(one.services)
    async with one.database.system() as tx:
        await dependency_store.lock_graph(tx, tenant.organization_id)
        assert await follow_up.run_once() == 1
        assert (await followed_up(one, tenant), await followed_up(one, other)) == (0, 1)
    assert await follow_up.run_once() == 2
    assert await follow_up.run_once() == 1
    assert await followed_up(one, tenant) == 3


async def test_a_concurrency_key_that_is_held_does_not_hold_up_the_schedules_of_others(
    one: Firer, tenant: Tenant, clock: Clock
) -> None:
    other = await make_tenant(one.database)
    held = await one.create(tenant, "held", EVERY_MINUTE, options=Options(concurrency=Concurrency("db")))
    clock.at += timedelta(seconds=1)
    free = await one.create(other, "free", replace(EVERY_MINUTE, start=clock.at))
    async with one.database.system() as tx:
        await key_store.lock_new(tx, [Key(tenant.organization_id, "key:db")])
        clock.at += timedelta(minutes=1)
        assert await one.firing.fire_due() == 1
        assert (await one.fired(held), len(await one.fired(free))) == ([], 1)
    clock.at += timedelta(seconds=2)
    assert await one.firing.fire_due() == 1
    assert len(await one.fired(held)) == 1


async def test_a_dependency_is_checked_without_waiting_for_who_changes_the_graph(one: Firer, tenant: Tenant) -> None:
    for task_id in ("first", "second"):
        await one.create(tenant, task_id, Schedule(cron="0 0 1 1 *"))
    caller = system_caller(tenant.organization_id, tenant.user_id, request_id="test")
    add = Dependencies(one.services).add
    async with one.database.system() as tx:
        await dependency_store.lock_graph(tx, tenant.organization_id)
        would_be = await add(caller, "second", "first", FailurePolicy.BLOCK, validate_only=True)
    assert (would_be.task_id, would_be.depends_on) == ("second", "first")
