"""Schedules over the wire: what is refused, previewed and counted, and who fires when there are several servers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.db.engine import Database
from stationmaster_server.tasks.model import Task
from stationmaster_server.tasks.schedules import count_due
from stationmaster_server.tasks.store import get as get_task
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer, StartServer
from tests.rpc.served import reason_of
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

from_call: Any = rpc_status.from_call


def moment(text: str) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(datetime.fromisoformat(text))
    return time


async def create(tasks: TaskServiceAsyncStub, task_id: str, schedule: pb.Schedule, **payload: Any) -> pb.Task:
    """A task of the kind `steered`."""
    task = pb.Task(kind="steered", payload=struct(payload), schedule=schedule)
    return await tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, task=task))


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """What is wrong, by field."""
    status = from_call(error)
    bad = error_details_pb2.BadRequest()
    assert status is not None
    assert any(detail.Unpack(bad) for detail in status.details)
    return {violation.field: violation.description for violation in bad.field_violations}


@pytest.mark.parametrize(
    ("schedule", "field", "said"),
    [
        (pb.Schedule(cron="0 25 * * *"), "cron", "the hour field, '25', is wrong: write 0 to 23"),
        (pb.Schedule(cron="0 9 * * 8"), "cron", "the day of week field, '8', is wrong"),
        (pb.Schedule(cron="0 0 9 * * *"), "cron", "has six fields"),
        (pb.Schedule(cron="@daily", time_zone="Europe/Bonn"), "time_zone", "is no time zone of the IANA database"),
        (pb.Schedule(cron="@daily", catch_up=Duration(seconds=1)), "catch_up", "from 10 s"),
    ],
)
async def test_a_wrong_schedule_is_refused_by_its_field(
    tasks: TaskServiceAsyncStub, schedule: pb.Schedule, field: str, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await create(tasks, "wrong", schedule)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in violations(refused.value)[f"task.schedule.{field}"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.PreviewSchedule(pb.PreviewScheduleRequest(schedule=schedule))
    assert said in violations(refused.value)[f"schedule.{field}"]


async def test_a_preview_tells_the_times_over_a_change_of_the_clock(tasks: TaskServiceAsyncStub) -> None:
    schedule = pb.Schedule(cron="30 2 * * *", time_zone="Europe/Berlin")
    request = pb.PreviewScheduleRequest(schedule=schedule, count=3, after_time=moment("2026-03-28T00:00"))
    preview = await tasks.PreviewSchedule(request)
    assert [time.ToJsonString() for time in preview.times] == [
        "2026-03-28T01:30:00Z",
        "2026-03-29T01:00:00Z",
        "2026-03-30T00:30:00Z",
    ]
    assert preview.description == "At 02:30 every day (Europe/Berlin)"
    stored = await create(tasks, "nightly", schedule)
    preview = await tasks.PreviewSchedule(pb.PreviewScheduleRequest(name=stored.name, count=1))
    assert preview.times[0] == stored.next_fire_time


async def backdate(database: Database, minutes: int) -> None:
    """All schedules have been due since then, and nobody was there."""
    async with database.system() as tx:
        await tx.execute(
            "UPDATE tasks SET settled_until = now() - make_interval(mins => $1), next_fire_at = now()", minutes
        )


async def test_a_failure_pauses_the_task_when_it_is_to(
    tasks: TaskServiceAsyncStub, database: Database, station: RunningServer
) -> None:
    schedule = pb.Schedule(cron="* * * * *", pause_on_failure=True)
    task = await create(tasks, "careful", schedule, fail=9, retryable=False)
    await backdate(database, 2)

    async def paused() -> pb.Task | None:
        found = await tasks.GetTask(pb.GetTaskRequest(name=task.name))
        return found if found.state == pb.TASK_STATE_PAUSED else None

    found = await until(paused, seconds=30)
    assert found is not None
    assert "failed: attempt 1 fails as it was told" in found.state_reason
    assert found.fire_count == 1
    assert 'stationmaster_schedules_due_total{outcome="FIRED"} 1.0' in station.app.metrics.render().decode()


async def test_who_read_a_task_before_a_failure_paused_it_does_not_overwrite_what_he_did_not_see(
    tasks: TaskServiceAsyncStub, database: Database
) -> None:
    schedule = pb.Schedule(cron="* * * * *", pause_on_failure=True)
    before = await create(tasks, "careful", schedule, fail=9, retryable=False)
    await backdate(database, 2)

    async def paused() -> pb.Task | None:
        found = await tasks.GetTask(pb.GetTaskRequest(name=before.name))
        return found if found.state == pb.TASK_STATE_PAUSED else None

    now = await until(paused, seconds=30)
    assert now is not None
    assert now.etag != before.etag
    before.description = "written by somebody who takes it for active"
    mask = FieldMask(paths=["description"])
    for validate_only in (True, False):
        request = pb.UpdateTaskRequest(task=before, update_mask=mask, validate_only=validate_only)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await tasks.UpdateTask(request)
        assert refused.value.code() is grpc.StatusCode.ABORTED
        assert reason_of(refused.value) == "ETAG_MISMATCH"
    before.etag = now.etag
    after = await tasks.UpdateTask(pb.UpdateTaskRequest(task=before, update_mask=mask))
    assert (after.description, after.state) == (before.description, pb.TASK_STATE_PAUSED)


@pytest.mark.timeout(300)
async def test_two_servers_one_of_which_is_killed_fire_each_due_time_once(
    server_process: StartServer, database: Database, database_url: str, data_folder: Path
) -> None:
    first = await server_process(database_url=database_url)
    second = await server_process(database_url=database_url, folder=data_folder.parent / "second")
    payload = struct({"prompt": "say hello", "model": "demo"})
    schedule = pb.Schedule(cron="* * * * *", overlap=pb.OVERLAP_POLICY_ALLOW_ALL)
    task_ids = [f"task-{number}" for number in range(6)]
    async with first.channel() as channel:
        tasks: Any = TaskServiceStub(channel)
        for task_id in task_ids:
            task = pb.Task(kind="prompt", payload=payload, schedule=schedule)
            await tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, task=task))
    began = datetime.now(UTC) - timedelta(minutes=5)
    await backdate(database, 5)

    async def some_fired() -> bool:
        return any([(await stored(database, task_id)).fired for task_id in task_ids])

    await until(some_fired, seconds=30)
    await second.kill()

    async def all_settled() -> bool:
        found = [await stored(database, task_id) for task_id in task_ids]
        return all(task.next_fire_at is not None and task.next_fire_at > datetime.now(UTC) for task in found)

    await until(all_settled, seconds=60)
    for task_id in task_ids:
        found = await stored(database, task_id)
        assert found.schedule is not None
        assert found.settled_until is not None
        due, _ = count_due(found.schedule, began, found.settled_until)
        assert (found.fired, found.skipped) == (due, {})
        assert await executions(database, found) == (due, due)


async def stored(database: Database, task_id: str) -> Task:
    """A task as it stands."""
    async with database.system(autocommit=True) as tx:
        organization_id = await tx.fetchval("SELECT organization_id FROM tasks WHERE task_id = $1", task_id)
        return await get_task(tx, organization_id, task_id)


async def executions(database: Database, task: Task) -> tuple[int, int]:
    """How many there are, and for how many times."""
    async with database.system(autocommit=True) as tx:
        row = await tx.fetchrow(
            "SELECT count(*) AS all, count(DISTINCT scheduled_for) AS times FROM executions WHERE task_uid = $1",
            task.uid,
        )
    assert row is not None
    return row["all"], row["times"]
