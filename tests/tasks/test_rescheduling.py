"""A schedule that is written again loses no due time: it goes on, or what it was due for is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.model import Tenant
from stationmaster_server.identity.system import system_caller
from stationmaster_server.tasks.model import Task
from stationmaster_server.tasks.schedule_model import Overlap, Schedule
from stationmaster_server.tasks.schedules import next_times

from tests.tasks.firers import Clock, Firer, firer

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
EVERY_MINUTE = Schedule(cron="* * * * *", overlap=Overlap.ALLOW_ALL)
JITTERED = Schedule(cron="0 * * * *", jitter=timedelta(minutes=50))
YEARLY = Schedule(cron="@yearly")


@pytest_asyncio.fixture
async def clock() -> Clock:
    return Clock(NOON)


@pytest_asyncio.fixture
async def server(database_url: str, clock: Clock) -> AsyncIterator[Firer]:
    async with firer(database_url, clock) as one:
        yield one


@pytest.fixture
def caller(tenant: Tenant) -> Caller:
    return system_caller(tenant.organization_id, tenant.user_id, request_id="test")


async def test_the_same_schedule_again_loses_no_time_that_is_still_to_fire(
    server: Firer, clock: Clock, tenant: Tenant, caller: Caller
) -> None:
    task = await server.create(tenant, "t", JITTERED)
    (due,) = next_times(JITTERED, NOON, 1, seed=str(task.uid))
    clock.at = due.due_at
    assert due.fires_at > clock.at
    same = await server.tasks.update(caller, "t", {"schedule": JITTERED, "description": "new"})
    assert (same.next_fire_at, same.settled_until) == (due.fires_at, task.settled_until)
    clock.at = due.fires_at
    assert await server.firing.fire_due() == 1
    assert await server.fired(task) == [due.due_at]


async def test_what_the_old_schedule_was_due_for_is_counted(
    server: Firer, clock: Clock, tenant: Tenant, caller: Caller
) -> None:
    await server.create(tenant, "jittered", JITTERED)
    await server.create(tenant, "late", EVERY_MINUTE)
    await server.create(tenant, "removed", EVERY_MINUTE)
    clock.at = NOON + timedelta(hours=1)
    for task_id, new in (("jittered", YEARLY), ("late", replace(EVERY_MINUTE, catch_up=MINUTE)), ("removed", None)):
        changed = await server.tasks.update(caller, task_id, {"schedule": new})
        assert changed.skipped == {"RESCHEDULED": 1 if task_id == "jittered" else 60}, task_id
    assert await server.firing.fire_due() == 0
    clock.at += MINUTE
    assert await server.firing.fire_due() == 1
    late = await server.get(tenant, "late")
    assert (late.fired, late.skipped) == (1, {"RESCHEDULED": 60})


async def test_what_came_in_a_pause_is_counted_as_paused(
    server: Firer, clock: Clock, tenant: Tenant, caller: Caller
) -> None:
    await server.create(tenant, "t", EVERY_MINUTE)
    await server.tasks.pause(caller, "t")
    clock.at += 5 * MINUTE
    assert (await server.tasks.update(caller, "t", {"schedule": EVERY_MINUTE})).skipped == {}
    assert (await server.tasks.update(caller, "t", {"schedule": YEARLY})).skipped == {"PAUSED": 5}
    assert (await server.tasks.resume(caller, "t")).skipped == {"PAUSED": 5}


async def test_what_was_fired_meanwhile_is_not_counted(
    server: Firer, clock: Clock, tenant: Tenant, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update reads the task, checks what is new, and only then locks it."""
    await server.create(tenant, "t", EVERY_MINUTE)
    clock.at += 5 * MINUTE
    check = server.services.filling.check

    async def fires(task: Task) -> None:
        await check(task)
        assert await server.firing.fire_due() == 5

    monkeypatch.setattr(server.services.filling, "check", fires)
    changed = await server.tasks.update(caller, "t", {"schedule": YEARLY})
    assert (changed.fired, changed.skipped) == (5, {})


async def test_a_schedule_that_cannot_be_read_any_more_can_be_replaced(
    server: Firer, clock: Clock, tenant: Tenant, caller: Caller
) -> None:
    await server.create(tenant, "t", EVERY_MINUTE)
    async with server.database.system() as tx:  # a zone that a newer database of zones has no more
        await tx.execute("""UPDATE tasks SET schedule = jsonb_set(schedule, '{time_zone}', '"Mars/Olympus"')""")
    clock.at += 5 * MINUTE
    changed = await server.tasks.update(caller, "t", {"schedule": EVERY_MINUTE})
    assert (changed.next_fire_at, changed.skipped) == (clock.at + MINUTE, {})
