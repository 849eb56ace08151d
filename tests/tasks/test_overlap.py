"""What a schedule does while its executions have not ended, and under which key they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.identity.system import system_caller
from stationmaster_server.tasks import dependency_store, execution_store, schedule_rules
from stationmaster_server.tasks.backfill import backfill
from stationmaster_server.tasks.model import Concurrency, FailurePolicy, Options, Strategy
from stationmaster_server.tasks.schedule_model import Overlap, Schedule

from tests.tasks.firers import Clock, Firer, firer, states

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
EVERY_MINUTE = Schedule(cron="* * * * *")


@pytest_asyncio.fixture
async def clock() -> Clock:
    return Clock(NOON)


@pytest_asyncio.fixture
async def one(database_url: str, clock: Clock) -> AsyncIterator[Firer]:
    async with firer(database_url, clock) as server:
        yield server


async def test_buffer_one_lets_one_wait_for_the_end(one: Firer, clock: Clock, tenant: Tenant) -> None:
    await one.create(tenant, "buffers", replace(EVERY_MINUTE, overlap=Overlap.BUFFER_ONE))
    for _ in range(4):
        clock.at += MINUTE
        await one.firing.fire_due()
    assert await states(one) == ["QUEUED", "WAITING"]
    assert (await one.get(tenant, "buffers")).skipped == {"OVERLAP": 2}


async def test_cancel_other_cancels_what_has_not_ended(one: Firer, clock: Clock, tenant: Tenant) -> None:
    await one.create(tenant, "cancels", replace(EVERY_MINUTE, overlap=Overlap.CANCEL_OTHER))
    for _ in range(3):
        clock.at += MINUTE
        await one.firing.fire_due()
    assert await states(one) == ["CANCELLED", "CANCELLED", "QUEUED"]
    assert (await one.get(tenant, "cancels")).skipped == {}


WAITS, CANCELS = Concurrency("db"), Concurrency("db", 1, Strategy.CANCEL_RUNNING)


@pytest.mark.parametrize(
    ("overlap", "own"), [(Overlap.SKIP, WAITS), (Overlap.BUFFER_ONE, WAITS), (Overlap.CANCEL_OTHER, CANCELS)]
)
async def test_what_a_schedule_begins_has_the_key_of_its_task(
    one: Firer, clock: Clock, tenant: Tenant, overlap: Overlap, own: Concurrency
) -> None:
    for task_id in ("first", "second"):
        schedule = replace(EVERY_MINUTE, overlap=overlap)
        await one.create(tenant, task_id, schedule, options=Options(concurrency=own))
    clock.at += MINUTE
    await one.firing.fire_due()
    cancels = overlap is Overlap.CANCEL_OTHER
    assert await states(one) == (["CANCELLED", "QUEUED"] if cancels else ["QUEUED", "WAITING"])


@pytest.mark.parametrize(
    ("overlap", "own"),
    [
        (Overlap.BUFFER_ONE, CANCELS),
        (Overlap.BUFFER_ONE, Concurrency(max_running=2)),
        (Overlap.BUFFER_ONE, Concurrency(strategy=Strategy.CANCEL_NEWEST)),
        (Overlap.CANCEL_OTHER, WAITS),
    ],
)
async def test_an_overlap_policy_that_the_key_of_the_task_does_not_keep_is_refused(
    one: Firer, tenant: Tenant, overlap: Overlap, own: Concurrency
) -> None:
    schedule = replace(EVERY_MINUTE, overlap=overlap)
    with pytest.raises(InvalidArgument, match="under the task's own concurrency key"):
        await one.create(tenant, "both", schedule, options=Options(concurrency=own))
    await one.create(tenant, "both", EVERY_MINUTE, options=Options(concurrency=own))
    caller = system_caller(tenant.organization_id, tenant.user_id, request_id="test")
    with pytest.raises(InvalidArgument, match="under the task's own concurrency key"):
        await one.tasks.update(caller, "both", {"schedule": schedule})


async def test_a_backfill_waits_under_the_key_of_its_task(one: Firer, tenant: Tenant) -> None:
    caller = system_caller(tenant.organization_id, tenant.user_id, request_id="test")

    async def fill(task_id: str, own: Concurrency | None) -> list[str]:
        await one.create(tenant, task_id, EVERY_MINUTE, options=Options(concurrency=own))
        await backfill(one.services, caller, task_id, NOON - 3 * MINUTE, NOON, variables={}, max_running=2)
        return await states(one)

    assert await fill("keyed", WAITS) == ["QUEUED", "WAITING", "WAITING"]
    assert (await fill("same", WAITS))[3:] == ["WAITING"] * 3
    assert (await fill("plain", None))[6:] == ["QUEUED", "QUEUED", "WAITING"]
    with pytest.raises(InvalidArgument, match="set it to WAIT first"):
        await fill("cancels", CANCELS)


@pytest.mark.parametrize(
    ("overlap", "expected", "skipped"),
    [(Overlap.CANCEL_OTHER, ["CANCELLED"] * 6 + ["WAITING"], {}), (Overlap.ALLOW_ALL, ["QUEUED"] * 3, {"OVERLAP": 4})],
)
async def test_what_waits_for_another_task_does_not_pile_up(
    one: Firer,
    clock: Clock,
    tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
    overlap: Overlap,
    expected: list[str],
    skipped: dict[str, int],
) -> None:
    monkeypatch.setattr(schedule_rules, "MOST_OPEN", 3)
    await one.create(tenant, "first", Schedule(cron="0 0 1 1 *"))
    await one.create(tenant, "second", replace(EVERY_MINUTE, overlap=overlap))
    async with one.database.system() as tx:
        await dependency_store.insert(tx, tenant.organization_id, "second", "first", FailurePolicy.BLOCK)
    for _ in range(7):
        clock.at += MINUTE
        await one.firing.fire_due()
    assert await states(one) == expected
    assert (await one.get(tenant, "second")).skipped == skipped
    async with one.database.system(autocommit=True) as tx:
        live = await execution_store.blocked_of(tx, tenant.organization_id, "second")
        assert len(live) == sum(state in ("QUEUED", "WAITING") for state in expected)
