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


@pytest.mark.parametrize(
    ("payload", "code", "said"),
    [
        ({"model": "demo", "tools": ["nosuch.tool"]}, grpc.StatusCode.FAILED_PRECONDITION, "is called nosuch.tool"),
        ({"agent": "nobody"}, grpc.StatusCode.INVALID_ARGUMENT, "task.payload.agent: there is no agent 'nobody'"),
    ],
)
async def test_a_tool_or_agent_that_is_not_there_is_refused_when_a_task_names_it(
    tasks: TaskServiceAsyncStub, payload: dict[str, Any], code: grpc.StatusCode, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await create(tasks, {"prompt": "hello", **payload})
    assert refused.value.code() is code
    assert said in (refused.value.details() or "")


async def test_a_tool_or_agent_from_a_variable_is_taken_for_good(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, {"model": "demo", "prompt": "x", "tools": ["{{ model }}"], "mcp_servers": ["mcpServers/none"]})
    changed = pb.Task(name="tasks/asks", payload=struct({"agent": "{{ model }}", "prompt": "hello"}))
    await tasks.UpdateTask(pb.UpdateTaskRequest(task=changed))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"model": "demo", "prompt": "/fail auth"}, "MODEL_UNAVAILABLE"),
        ({"model": "demo", "prompt": "x", "mcp_servers": ["none"]}, "RUNTIME_UNAVAILABLE"),
    ],
)
async def test_what_can_never_succeed_is_not_tried_again(
    tasks: TaskServiceAsyncStub, payload: dict[str, Any], reason: str
) -> None:
    made = await submit(tasks, payload)

    async def ended() -> pb.Execution | None:
        now = await tasks.GetExecution(pb.GetExecutionRequest(name=made.name))
        return now if now.HasField("end_time") else None

    execution = await until(ended)
    assert execution is not None
    assert (execution.state, execution.attempt_count) == (pb.EXECUTION_STATE_FAILED, 1)
    assert execution.failed_attempts[0].reason == reason


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
