"""What callers are promised of keys that are templates: one key for each value, whoever begins the execution."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from stationmaster.v1 import task_pb2 as pb
from stationmaster_server.db.model import Tenant
from stationmaster_server.tasks.model import Concurrency, Options, Variable
from stationmaster_server.tasks.schedule_model import Overlap, Schedule
from stationmaster_server.wire.fields import struct

from tests.tasks.firers import Clock, firer, states
from tests.tasks.kinds import Steered
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

MINUTE = timedelta(minutes=1)


def keyed(key: str, rate: pb.ExecutionRate | None = None) -> pb.Task:
    """A task for one customer at a time."""
    return pb.Task(
        kind="steered",
        payload=struct({"text": "{{ who }}", "gate": "{{ who }}"}),
        variables=[pb.VariableDeclaration(name="who", required=True)],
        options=pb.ExecutionOptions(concurrency=pb.ExecutionConcurrency(key=key), rate=rate),
    )


async def refusal(tasks: TaskServiceAsyncStub, task: pb.Task) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.CreateTask(pb.CreateTaskRequest(task_id="refused", task=task))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return refused.value.details() or ""


async def test_each_value_has_a_key_of_its_own(tasks: TaskServiceAsyncStub, steered: Steered) -> None:
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="served", task=keyed("customer-{{ who }}")))

    async def begin(who: str) -> str:
        request = pb.ExecuteTaskRequest(name="tasks/served", variables=struct({"who": who}))
        return (await tasks.ExecuteTask(request)).name

    async def state(name: str) -> str:
        return pb.ExecutionState.Name((await tasks.GetExecution(pb.GetExecutionRequest(name=name))).state)

    first, other = await begin("ann"), await begin("bob")

    async def both_run() -> bool:
        return len(steered.begun) == 2

    await until(both_run)  # neither waits for the other
    again = await begin("ann")
    assert await state(again) == "EXECUTION_STATE_QUEUED"
    steered.gate("bob").set()
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=other)):
        pass
    assert (await state(first), await state(again)) == ("EXECUTION_STATE_RUNNING", "EXECUTION_STATE_QUEUED")
    steered.gate("ann").set()
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=again)):
        pass
    assert await state(again) == "EXECUTION_STATE_SUCCEEDED"


async def test_a_key_that_cannot_be_filled_in_is_refused_with_its_place(tasks: TaskServiceAsyncStub) -> None:
    unknown = await refusal(tasks, keyed("{{ whom }}"))
    assert "task.options.concurrency.key: it uses variables that are not declared: whom" in unknown
    assert "task.options.concurrency.key" in await refusal(tasks, keyed("{{ who"))
    assert "no loops" in await refusal(tasks, keyed("{{ who * 3 }}"))
    rate = pb.ExecutionRate(key="{{ whom }}", limit=1)
    assert "task.options.rate.key: it uses" in await refusal(tasks, keyed("", rate=rate))
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="served", task=keyed("{{ who }}")))
    for who, said in (("", "it is empty"), ("x" * 201, "it has 201 characters; 200 are allowed")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/served", variables=struct({"who": who})))
        assert f"options.concurrency.key: filled in, {said}" in (refused.value.details() or "")


async def test_without_a_task_a_key_is_no_template(tasks: TaskServiceAsyncStub) -> None:
    options = pb.ExecutionOptions(concurrency=pb.ExecutionConcurrency(key="{{ who }}"))
    spec = pb.ExecutionSpec(kind="steered", options=options)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))
    assert "execution.options.concurrency.key: an execution without a task" in (refused.value.details() or "")


async def test_the_key_of_a_dependent_is_filled_in_with_its_defaults(tasks: TaskServiceAsyncStub) -> None:
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="before", task=pb.Task(kind="steered")))
    after = keyed("{{ task }} {{ who }}")
    after.variables[0].required = False
    after.payload.update({"gate": ""})
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="after", task=after))
    await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/after", depends_on="tasks/before"))
    await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/before"))

    async def dependent() -> list[pb.Execution]:
        page = await tasks.ListExecutions(pb.ListExecutionsRequest(filter='task = "tasks/after"'))
        return [one for one in page.executions if one.state == pb.EXECUTION_STATE_SUCCEEDED]

    await until(dependent)
    (made,) = await dependent()
    assert made.trigger == pb.EXECUTION_TRIGGER_DEPENDENCY


async def test_a_schedule_fills_keys_in_for_each_time(database_url: str, tenant: Tenant) -> None:
    clock = Clock(datetime(2026, 6, 1, 12, 0, tzinfo=UTC))
    schedule = Schedule(cron="* * * * *", overlap=Overlap.ALLOW_ALL)
    async with firer(database_url, clock) as one:
        for task_id, key in (("same", "{{ who }}"), ("apart", "at {{ scheduled_time }}")):
            variables = (Variable("who", has_default=True, default="ann"),)
            own = Concurrency(key)
            await one.create(tenant, task_id, schedule, variables=variables, options=Options(concurrency=own))
        for _ in range(2):
            clock.at += MINUTE
            await one.firing.fire_due()
        assert sorted(await states(one)) == ["QUEUED", "QUEUED", "QUEUED", "WAITING"]
