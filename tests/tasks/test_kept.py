"""Executions that exist keep what they were submitted with, and go on, whatever becomes of their task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import task_pb2 as pb
from stationmaster_client.structs import values
from stationmaster_client.values import to_value
from stationmaster_server.wire.fields import struct

from tests.tasks.kinds import Steered
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


async def ended(tasks: TaskServiceAsyncStub, name: str) -> pb.Execution:
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


def city(name: str) -> pb.VariableDeclaration:
    """The variable that the text has, and its default."""
    return pb.VariableDeclaration(name="city", default_value=to_value(name))


@pytest.fixture
async def backfilled(tasks: TaskServiceAsyncStub, steered: Steered) -> list[str]:
    """Three executions of the task `a`, of which one runs and the others wait for it."""
    payload = struct({"text": "{{ city }} {{ scheduled_time[:4] }} {{ task }}", "gate": "g"})
    yearly = pb.Schedule(cron="0 0 1 1 *")
    task = pb.Task(kind="steered", payload=payload, variables=[city("Berlin")], schedule=yearly)
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="a", task=task))
    request = pb.BackfillTaskRequest(name="tasks/a")
    request.start_time.FromJsonString("2020-01-01T00:00:00Z")
    request.end_time.FromJsonString("2023-01-01T00:00:00Z")
    names = list((await tasks.BackfillTask(request)).names)

    async def begun() -> list[Any]:
        return steered.begun

    await until(begun)
    return names


async def test_what_waits_keeps_the_variables_of_its_submission(
    tasks: TaskServiceAsyncStub, steered: Steered, backfilled: list[str]
) -> None:
    mask = FieldMask(paths=["variables"])
    await tasks.UpdateTask(
        pb.UpdateTaskRequest(task=pb.Task(name="tasks/a", variables=[city("Paris")]), update_mask=mask)
    )
    steered.gate("g").set()
    done = [await ended(tasks, name) for name in backfilled]
    assert [values(one.result)["text"] for one in done] == [f"Berlin {year} tasks/a" for year in (2020, 2021, 2022)]
    assert [values(one.variables) for one in done] == [{"city": "Berlin"}] * 3


async def test_what_waits_goes_on_when_its_task_is_deleted(
    tasks: TaskServiceAsyncStub, steered: Steered, backfilled: list[str]
) -> None:
    await tasks.DeleteTask(pb.DeleteTaskRequest(name="tasks/a"))
    steered.gate("g").set()
    done = [await ended(tasks, name) for name in backfilled]
    assert [(one.state, one.message) for one in done] == [(pb.EXECUTION_STATE_SUCCEEDED, "")] * 3
    assert [values(one.result)["text"] for one in done] == [f"Berlin {year} tasks/a" for year in (2020, 2021, 2022)]


async def test_what_a_dependency_begins_fails_when_its_key_cannot_be_filled_in(
    tasks: TaskServiceAsyncStub, steered: Steered
) -> None:
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="first", task=pb.Task(kind="steered")))
    options = pb.ExecutionOptions(concurrency=pb.ExecutionConcurrency(key="{{ city }}"))
    city = pb.VariableDeclaration(name="city")
    after = pb.Task(kind="steered", payload=struct({"text": "in {{ city }}"}), variables=[city], options=options)
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="after", task=after))
    await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/after", depends_on="tasks/first"))
    await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/first"))

    async def begun() -> list[pb.Execution]:
        return list((await tasks.ListExecutions(pb.ListExecutionsRequest(filter='task = "tasks/after"'))).executions)

    (execution,) = await until(begun)
    end = await ended(tasks, execution.name)
    assert end.state == pb.EXECUTION_STATE_FAILED
    assert "options.concurrency.key: filled in, it is empty" in end.message
    assert len(steered.begun) == 1
