"""Schedules fire: each due time once across servers and crashes, or counted with its reason."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import StationmasterError, Unavailable
from stationmaster_server.identity.system import system_caller
from stationmaster_server.resilience.loops import attempt
from stationmaster_server.tasks import schedule_store
from stationmaster_server.tasks.backfill import backfill
from stationmaster_server.tasks.model import TaskState
from stationmaster_server.tasks.previews import Previews
from stationmaster_server.tasks.schedule_model import Overlap, Schedule
from stationmaster_server.tasks.schedules import next_times

from tests.fixtures.database import make_tenant
from tests.tasks.firers import Clock, Firer, firer
from tests.waiting import until

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
EVERY_MINUTE = Schedule(cron="* * * * *")


@pytest_asyncio.fixture
async def clock() -> Clock:
    return Clock(NOON)


@pytest_asyncio.fixture
async def servers(database_url: str, clock: Clock) -> AsyncIterator[list[Firer]]:
    """Two servers on one database, by one clock."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(firer(database_url, clock)) for _ in range(2)]


@pytest_asyncio.fixture
async def one(servers: list[Firer]) -> Firer:
    return servers[0]


async def end(server: Firer, state: str, count: int = 1) -> list[UUID]:
    """Let the oldest executions end, as a worker would."""
    async with server.database.system() as tx:
        rows = await tx.fetch(
            """UPDATE work_items SET state = $1, finished_at = now() WHERE item_id IN (
                   SELECT item_id FROM work_items WHERE follow_up AND state IN ('QUEUED', 'WAITING')
                   ORDER BY item_id LIMIT $2
               ) RETURNING item_id""",
            state,
            count,
        )
    return [row["item_id"] for row in rows]


async def audited(server: Firer, action: str) -> list[dict[str, object]]:
    """The details of the audit events of an action."""
    async with server.database.system(autocommit=True) as tx:
        rows = await tx.fetch("SELECT details FROM audit_events WHERE action = $1 ORDER BY created_at", action)
    return [row["details"] for row in rows]


CHANGING = [
    ("berlin", "Europe/Berlin"),
    ("howe", "Australia/Lord_Howe"),
    ("santiago", "America/Santiago"),
]
# Around every change of their clocks in 2026.
WINDOWS = [
    ("2026-03-28", "2026-04-07"),
    ("2026-09-05", "2026-09-08"),
    ("2026-10-03", "2026-10-06"),
    ("2026-10-24", "2026-10-27"),
]
STEP, CATCH_UP = timedelta(hours=2, minutes=7), timedelta(hours=3)


@pytest.mark.timeout(300)
async def test_two_servers_fire_each_due_time_once_over_changes_of_the_clock(
    servers: list[Firer], clock: Clock, tenant: Tenant
) -> None:
    looks = []
    for begin, finish in WINDOWS:
        clock.at = datetime.fromisoformat(begin).replace(tzinfo=UTC)
        while clock.at < datetime.fromisoformat(finish).replace(tzinfo=UTC):
            looks.append(clock.at)
            clock.at += STEP
    clock.at = looks[0]
    tasks = {}
    for name, zone in CHANGING:
        for kind, cron in (("daily", "15 2 * * *"), ("running", "*/45 0-4 * * *")):
            schedule = Schedule(cron, time_zone=zone, overlap=Overlap.ALLOW_ALL, catch_up=CATCH_UP)
            tasks[f"{name}-{kind}"] = await servers[0].create(tenant, f"{name}-{kind}", schedule)
    for clock.at in looks:
        await asyncio.gather(*(server.firing.fire_due() for server in servers))
    for name, task in tasks.items():
        assert task.schedule is not None
        due = [time.due_at for time in next_times(task.schedule, looks[0], 5000) if time.due_at <= looks[-1]]
        seen = [(time, min(look for look in looks if look >= time)) for time in due]
        expected = [time for time, look in seen if look - time <= CATCH_UP]
        assert await servers[0].fired(task) == expected, name
        now = await servers[1].get(tenant, task.task_id)
        assert (now.fired, now.skipped) == (len(expected), {"MISSED": len(due) - len(expected)}), name
        assert now.next_fire_at == next_times(task.schedule, looks[-1], 1)[0].due_at
    # The morning that has no 02:15 on Lord Howe Island, and the one on which 02:00 in Berlin comes twice.
    howe = await servers[0].fired(tasks["howe-daily"])
    assert datetime(2026, 10, 3, 15, 30, tzinfo=UTC) in howe
    berlin = await servers[0].fired(tasks["berlin-daily"])
    assert [time for time in berlin if time.date() == datetime(2026, 10, 25).date()] == [  # noqa: DTZ001
        datetime(2026, 10, 25, 0, 15, tzinfo=UTC)
    ]


async def test_what_fires_is_what_the_preview_said(one: Firer, clock: Clock, tenant: Tenant) -> None:
    schedule = Schedule(
        "*/7 9-17 * * MON-FRI", time_zone="America/New_York", jitter=3 * MINUTE, overlap=Overlap.ALLOW_ALL
    )
    task = await one.create(tenant, "often", schedule)
    caller = system_caller(tenant.organization_id, tenant.user_id, request_id="test")
    preview, words = await Previews(one.services).schedule(caller, "often", None, NOON, 50)
    assert words.endswith("(America/New_York)")
    while len(await one.fired(task)) < 50:
        current = await one.get(tenant, "often")
        assert current.next_fire_at is not None
        clock.at = current.next_fire_at
        assert await one.firing.fire_due() == 1
    assert await one.fired(task) == preview


async def test_many_servers_share_many_tasks(servers: list[Firer], clock: Clock, tenant: Tenant) -> None:
    other = await make_tenant(servers[0].database)
    for owner in (tenant, other):
        for number in range(20):
            await servers[0].create(owner, f"task-{number}", EVERY_MINUTE)
    clock.at += MINUTE
    begun = 0

    async def all_have() -> bool:  # what is put off, for a busy machine holds its locks too long, comes a little later
        nonlocal begun
        begun += sum(await asyncio.gather(*(server.firing.fire_due() for server in servers * 3)))
        return begun >= 40

    await until(all_have)
    assert begun == 40
    assert sum(await asyncio.gather(*(server.firing.fire_due() for server in servers))) == 0


async def test_a_firer_killed_before_its_commit_is_as_if_it_had_never_been(
    one: Firer, clock: Clock, tenant: Tenant, database_url: str
) -> None:
    task = await one.create(tenant, "kept", replace(EVERY_MINUTE, overlap=Overlap.ALLOW_ALL))
    clock.at += 3 * MINUTE
    command = (sys.executable, "-m", "tests.tasks.doomed_firer", database_url, clock.at.isoformat())
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        assert await one.firing.fire_due() == 0  # the other one holds the task
    finally:
        process.kill()
        await process.wait()
    assert await until(one.firing.fire_due) == 3
    assert await one.fired(task) == [NOON + n * MINUTE for n in (1, 2, 3)]
    assert (await one.get(tenant, "kept")).fired == 3


async def test_skip_counts_what_came_while_another_one_ran(one: Firer, clock: Clock, tenant: Tenant) -> None:
    task = await one.create(tenant, "skips", EVERY_MINUTE)
    for _ in range(3):
        clock.at += MINUTE
        await one.firing.fire_due()
    current = await one.get(tenant, "skips")
    assert (current.fired, current.skipped) == (1, {"OVERLAP": 2})
    assert current.last_fire_at == NOON + MINUTE
    assert [details["OVERLAP"] for details in await audited(one, "task.skip")] == [1, 1]
    await end(one, "SUCCEEDED")
    clock.at += MINUTE
    await one.firing.fire_due()
    assert await one.fired(task) == [NOON + MINUTE, NOON + 4 * MINUTE]


async def test_an_outage_is_caught_up_with_as_far_as_the_window_goes(one: Firer, clock: Clock, tenant: Tenant) -> None:
    schedule = replace(EVERY_MINUTE, overlap=Overlap.ALLOW_ALL, catch_up=2 * HOUR)
    task = await one.create(tenant, "late", schedule)
    clock.at += timedelta(days=365)
    assert await one.firing.fire_due() == 121
    current = await one.get(tenant, "late")
    assert (current.fired, current.skipped) == (121, {"MISSED": 365 * 24 * 60 - 121})
    assert (await one.fired(task))[0] == clock.at - 2 * HOUR
    assert await audited(one, "task.skip") == [{"until": (clock.at - 21 * MINUTE).isoformat(), "MISSED": 525479}]


async def test_a_paused_task_does_not_fire_and_counts_the_pause_when_it_goes_on(
    one: Firer, clock: Clock, tenant: Tenant
) -> None:
    task = await one.create(tenant, "pauses", EVERY_MINUTE)
    caller = system_caller(tenant.organization_id, tenant.user_id, request_id="test")
    await one.tasks.pause(caller, "pauses")
    clock.at += 5 * MINUTE
    assert await one.firing.fire_due() == 0
    resumed = await one.tasks.resume(caller, "pauses")
    assert (resumed.skipped, resumed.next_fire_at) == ({"PAUSED": 5}, NOON + 6 * MINUTE)
    assert await one.firing.fire_due() == 0
    clock.at += MINUTE
    assert await one.firing.fire_due() == 1
    assert await one.fired(task) == [NOON + 6 * MINUTE]


async def test_a_new_schedule_begins_now(one: Firer, clock: Clock, tenant: Tenant) -> None:
    task = await one.create(tenant, "changes", Schedule("@yearly"))
    clock.at += HOUR
    caller = system_caller(tenant.organization_id, tenant.user_id, request_id="test")
    changed = await one.tasks.update(caller, "changes", {"schedule": EVERY_MINUTE})
    assert changed.next_fire_at == clock.at + MINUTE
    assert await one.firing.fire_due() == 0
    await one.tasks.update(caller, "changes", {"description": "the schedule stays"})
    clock.at += MINUTE
    assert await one.firing.fire_due() == 1
    removed = await one.tasks.update(caller, "changes", {"schedule": None})
    assert removed.next_fire_at is None
    clock.at += HOUR
    assert await one.firing.fire_due() == 0
    assert await one.fired(task) == [NOON + HOUR + MINUTE]


async def test_a_failure_that_is_not_followed_up_yet_holds_a_schedule_that_pauses_on_failure(
    one: Firer, clock: Clock, tenant: Tenant
) -> None:
    await one.create(tenant, "careful", replace(EVERY_MINUTE, pause_on_failure=True))
    clock.at += MINUTE
    assert await one.firing.fire_due() == 1
    failed = await end(one, "DEAD")
    clock.at += MINUTE
    assert await one.firing.fire_due() == 0
    current = await one.get(tenant, "careful")
    assert (current.state, current.fired, current.skipped) == (TaskState.ACTIVE, 1, {})
    assert current.next_fire_at == clock.at + timedelta(seconds=1)
    async with one.database.system() as tx:  # as its follow-up does, when nobody wants it to pause
        await tx.execute("UPDATE work_items SET followed_up = true WHERE item_id = $1", failed[0])
    clock.at += timedelta(seconds=1)
    assert await one.firing.fire_due() == 1


async def test_a_task_that_cannot_be_fired_holds_up_no_other(one: Firer, clock: Clock, tenant: Tenant) -> None:
    broken = await one.create(tenant, "broken", EVERY_MINUTE)
    clock.at += timedelta(seconds=1)
    sound = await one.create(tenant, "sound", EVERY_MINUTE)
    async with one.database.system() as tx:  # a zone that a newer database of zones has no more
        await tx.execute(
            """UPDATE tasks SET schedule = jsonb_set(schedule, '{time_zone}', '"Mars/Olympus"')
               WHERE task_id = 'broken'"""
        )
    clock.at = NOON + MINUTE
    assert await one.firing.fire_due() == 1
    assert (await one.fired(broken), await one.fired(sound)) == ([], [NOON + MINUTE])
    assert (await one.get(tenant, "broken")).next_fire_at == clock.at + timedelta(seconds=30)


async def test_a_due_time_that_was_backfilled_is_not_executed_again(one: Firer, clock: Clock, tenant: Tenant) -> None:
    task = await one.create(tenant, "filled", replace(EVERY_MINUTE, overlap=Overlap.ALLOW_ALL))
    caller = system_caller(tenant.organization_id, tenant.user_id, request_id="test")
    await backfill(one.services, caller, "filled", NOON + MINUTE, NOON + 3 * MINUTE, variables={})
    clock.at += 4 * MINUTE
    assert await one.firing.fire_due() == 2
    assert await one.fired(task) == [NOON + n * MINUTE for n in (1, 2, 3, 4)]


async def test_a_server_counts_what_it_did(one: Firer, clock: Clock, tenant: Tenant) -> None:
    await one.create(tenant, "counted", EVERY_MINUTE)
    clock.at += 90 * MINUTE + timedelta(seconds=7)
    await one.firing.fire_due()
    assert one.firing.outcomes == {"FIRED": 1, "MISSED": 30, "OVERLAP": 59, "PUT_OFF": 0}
    assert one.firing.lag == 89 * MINUTE + timedelta(seconds=7)


async def test_an_outage_in_the_middle_of_firing_costs_no_time_but_its_own(
    one: Firer, clock: Clock, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, administrator_url: str
) -> None:
    task = await one.create(tenant, "cut", EVERY_MINUTE)
    clock.at += MINUTE
    administrator = await asyncpg.connect(administrator_url)

    async def cut(tx: Transaction, *args: object, **kwargs: object) -> None:
        pid = await tx.fetchval("SELECT pg_backend_pid()")
        await administrator.execute("SELECT pg_terminate_backend($1)", pid)
        await tx.execute("SELECT 1")

    with monkeypatch.context() as patch:
        patch.setattr(schedule_store, "settle", cut)
        with pytest.raises(Unavailable):
            await one.firing.fire_due()
    await administrator.close()
    assert await one.firing.fire_due() == 1
    assert await one.fired(task) == [clock.at]


async def test_servers_whose_connections_are_cut_all_the_time_fire_each_due_time_once(
    servers: list[Firer], clock: Clock, tenant: Tenant, administrator_url: str
) -> None:
    schedule = replace(EVERY_MINUTE, overlap=Overlap.ALLOW_ALL)
    tasks = [await servers[0].create(tenant, f"task-{number}", schedule) for number in range(12)]
    clock.at += 5 * MINUTE

    async def settled(server: Firer) -> bool:
        found = [await server.get(tenant, task.task_id) for task in tasks]
        return all(task.settled_until == clock.at for task in found)

    async def fire(server: Firer) -> None:
        done = False
        while not done:
            await attempt("fire", server.firing.fire_due)
            with contextlib.suppress(StationmasterError):
                done = await settled(server)

    administrator = await asyncpg.connect(administrator_url)
    firing = asyncio.gather(*(fire(server) for server in servers))
    try:
        cut = 0
        while cut < 20 and not firing.done():
            cut += await administrator.fetchval(
                """SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle in transaction'"""
            )
        assert cut
        async with asyncio.timeout(60):
            await firing
    finally:
        firing.cancel()
        await administrator.close()
    assert [server.firing.outcomes["PUT_OFF"] for server in servers] == [0, 0]
    for task in tasks:
        assert await servers[0].fired(task) == [NOON + n * MINUTE for n in range(1, 6)]
        assert (await servers[0].get(tenant, task.task_id)).fired == 5


async def test_after_its_end_a_schedule_is_never_due_again(one: Firer, clock: Clock, tenant: Tenant) -> None:
    schedule = replace(EVERY_MINUTE, overlap=Overlap.ALLOW_ALL, end=NOON + 2 * MINUTE)
    await one.create(tenant, "ends", schedule)
    clock.at += HOUR
    assert await one.firing.fire_due() == 2
    assert (await one.get(tenant, "ends")).next_fire_at is None
