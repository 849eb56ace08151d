"""Nothing begins by itself for a user who is disabled, or may not do it any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stationmaster.v1 import identity_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client import Client
from stationmaster_server.db.engine import Database
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer
from tests.tasks.kinds import Steered
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


async def of_a_disabled_user(station: RunningServer, tasks: TaskServiceAsyncStub) -> None:
    """The task `theirs`, with a schedule, that waits for the task `first` of somebody else."""
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="first", task=pb.Task(kind="steered")))
    async with Client.connect(station.target, station.admin_key) as admin:
        user = await admin.users.create(display_name="Ada", role=identity_pb2.ROLE_MEMBER)
        key = (await admin.keys.create(user=user.name)).secret
        async with station.channel(key) as channel:
            stub: TaskServiceAsyncStub = TaskServiceStub(channel)
            task = pb.Task(kind="steered", schedule=pb.Schedule(cron="* * * * *"))
            await stub.CreateTask(pb.CreateTaskRequest(task_id="theirs", task=task))
            await stub.AddDependency(pb.AddDependencyRequest(task="tasks/theirs", depends_on="tasks/first"))
        await admin.users.disable(user.name)


@pytest.mark.parametrize(
    "trigger", [pb.EXECUTION_TRIGGER_SCHEDULE, pb.EXECUTION_TRIGGER_DEPENDENCY, pb.EXECUTION_TRIGGER_BACKFILL]
)
async def test_what_begins_by_itself_for_a_disabled_user_fails_at_once_and_for_good(
    station: RunningServer,
    tasks: TaskServiceAsyncStub,
    steered: Steered,
    database: Database,
    trigger: pb.ExecutionTrigger.ValueType,
) -> None:
    await of_a_disabled_user(station, tasks)
    first = await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/first"))
    if trigger == pb.EXECUTION_TRIGGER_SCHEDULE:
        async with database.system() as tx:
            await tx.execute("UPDATE tasks SET settled_until = now() - interval '90 s', next_fire_at = now()")
    elif trigger == pb.EXECUTION_TRIGGER_BACKFILL:
        asked = pb.BackfillTaskRequest(name="tasks/theirs")
        asked.start_time.FromJsonString("2026-03-01T00:00:00Z")
        asked.end_time.FromJsonString("2026-03-01T00:01:00Z")
        await tasks.BackfillTask(asked)

    async def failed() -> pb.Execution | None:
        request = pb.ListExecutionsRequest(filter=f'task = "tasks/theirs" AND trigger = "{name}" AND state = "FAILED"')
        page = await tasks.ListExecutions(request)
        return page.executions[0] if page.executions else None

    name = pb.ExecutionTrigger.Name(trigger).removeprefix("EXECUTION_TRIGGER_")
    found = await until(failed)
    assert found is not None
    execution = await tasks.GetExecution(pb.GetExecutionRequest(name=found.name))
    assert (execution.reason, [one.reason for one in execution.failed_attempts]) == ("NOT_RETRYABLE", ["USER_DISABLED"])
    assert "is disabled: nothing is done for it" in execution.message
    assert {f"executions/{begun}" for begun in steered.begun} == {first.name}


async def test_a_schedule_outlives_no_right_of_its_owner(
    station: RunningServer, tasks: TaskServiceAsyncStub, database: Database
) -> None:
    async with Client.connect(station.target, station.admin_key) as admin:
        user = await admin.users.create(display_name="Ada", role=identity_pb2.ROLE_MEMBER)
        key = (await admin.keys.create(user=user.name)).secret
        async with station.channel(key) as channel:
            stub: TaskServiceAsyncStub = TaskServiceStub(channel)
            payload = struct({"prompt": "/say 1", "model": "demo"})
            task = pb.Task(kind="prompt", payload=payload, schedule=pb.Schedule(cron="* * * * *"))
            await stub.CreateTask(pb.CreateTaskRequest(task_id="theirs", task=task))
        user.role = identity_pb2.ROLE_VIEWER
        await admin.users.update(user, ["role"])
    async with database.system() as tx:
        await tx.execute("UPDATE tasks SET settled_until = now() - interval '90 s', next_fire_at = now()")

    async def failed() -> pb.Execution | None:
        page = await tasks.ListExecutions(pb.ListExecutionsRequest(filter='state = "FAILED"'))
        return page.executions[0] if page.executions else None

    found = await until(failed, seconds=60)
    assert found is not None
    execution = await tasks.GetExecution(pb.GetExecutionRequest(name=found.name))
    assert [one.reason for one in execution.failed_attempts] == ["SCOPE_MISSING"]
    assert not execution.session


async def test_what_a_user_submitted_before_being_disabled_does_not_run(
    station: RunningServer, tasks: TaskServiceAsyncStub, steered: Steered
) -> None:
    async with Client.connect(station.target, station.admin_key) as admin:
        user = await admin.users.create(display_name="Ada", role=identity_pb2.ROLE_MEMBER)
        key = (await admin.keys.create(user=user.name)).secret
        async with station.channel(key) as channel:
            stub: TaskServiceAsyncStub = TaskServiceStub(channel)
            spec = pb.ExecutionSpec(kind="steered", payload=struct({"fail": 1}))
            spec.options.retry.max_attempts = 5
            spec.options.retry.initial_delay.FromMilliseconds(1500)
            submitted = await stub.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))
            await until(lambda: _begun(steered))
        await admin.users.disable(user.name)

    async def ended() -> pb.Execution | None:
        execution = await tasks.GetExecution(pb.GetExecutionRequest(name=submitted.name))
        return execution if execution.state == pb.EXECUTION_STATE_FAILED else None

    execution = await until(ended)
    assert execution is not None
    assert "is disabled: nothing is done for it" in execution.message
    assert len(steered.begun) == 1


async def _begun(steered: Steered) -> bool:
    return bool(steered.begun)
