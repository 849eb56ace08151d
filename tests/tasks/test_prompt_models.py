"""A model that the server cannot have is refused when it is named, and not tried again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from stationmaster.v1 import task_pb2 as pb
from stationmaster_server.wire.fields import struct

from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

Call = Callable[["TaskServiceAsyncStub", dict[str, Any]], Awaitable[Any]]


async def submit(tasks: TaskServiceAsyncStub, payload: dict[str, Any]) -> Any:
    spec = pb.ExecutionSpec(kind="prompt", payload=struct(payload))
    return await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))


async def create(tasks: TaskServiceAsyncStub, payload: dict[str, Any]) -> Any:
    task = pb.Task(kind="prompt", payload=struct(payload), variables=[pb.VariableDeclaration(name="model")])
    return await tasks.CreateTask(pb.CreateTaskRequest(task_id="asks", task=task))


@pytest.mark.parametrize("call", [submit, create])
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("no-such-model", "there is no model of this name; there are: demo"),
        ("nobody:model", "provider 'nobody' is not configured on this server; there are: demo"),
        ("dmeo", "did you mean demo? there are: demo"),
    ],
)
async def test_a_model_that_is_not_there_is_refused_with_those_there_are(
    tasks: TaskServiceAsyncStub, call: Call, model: str, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(tasks, {"model": model, "prompt": "hello"})
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert said in (refused.value.details() or "")


async def test_a_model_from_a_variable_is_refused_when_it_is_known(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, {"model": "{{ model }}", "prompt": "hello"})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/asks", variables=struct({"model": "no-such-model"})))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_model_that_is_not_there_when_it_runs_is_not_tried_again(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, {"model": "{{ 'no-such-model' }}", "prompt": "hello"})
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="first", task=pb.Task(kind="steered")))
    await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/asks", depends_on="tasks/first"))
    await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/first"))

    async def failed() -> list[pb.Execution]:
        wanted = 'task = "tasks/asks" AND state = "FAILED"'
        return list((await tasks.ListExecutions(pb.ListExecutionsRequest(filter=wanted))).executions)

    (execution,) = await until(failed)
    assert (execution.reason, execution.attempt_count) == ("NOT_RETRYABLE", 1)
    assert "there are: demo" in execution.message
