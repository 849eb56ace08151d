"""An execution is of its task as it is when that commits, whatever happens while its templates are filled in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import task_pb2 as pb
from stationmaster_server.tasks.filling import Filling
from stationmaster_server.wire.fields import struct

from tests.rpc.served import reason_of

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

NAME = "tasks/changing"
GATE = pb.Task(name=NAME, kind="steered", payload=struct({"gate": "old"}))
CHANGED = pb.UpdateTaskRequest(
    task=pb.Task(name=NAME, payload=struct({"gate": "new"})), update_mask=FieldMask(paths=["payload"])
)


def meanwhile(monkeypatch: pytest.MonkeyPatch, *happen: Callable[[], Awaitable[Any]]) -> None:
    """One thing each time that templates have been filled in, until there are no more."""
    left = list(happen)
    fill = Filling.fill

    async def slow(self: Filling, *arguments: Any, **named: Any) -> Any:
        filled = await fill(self, *arguments, **named)
        if left:
            await left.pop(0)()
        return filled

    monkeypatch.setattr(Filling, "fill", slow)


async def test_a_task_that_is_changed_meanwhile_is_filled_in_again(
    tasks: TaskServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="changing", task=GATE))
    meanwhile(monkeypatch, lambda: tasks.UpdateTask(CHANGED))
    request = pb.ExecuteTaskRequest(name=NAME, request_id=str(uuid4()))
    execution = await tasks.ExecuteTask(request)
    assert dict(execution.payload) == {"gate": "new"}
    assert await tasks.ExecuteTask(request) == execution


async def test_a_task_that_is_deleted_meanwhile_is_not_executed(
    tasks: TaskServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="changing", task=GATE))
    meanwhile(monkeypatch, lambda: tasks.DeleteTask(pb.DeleteTaskRequest(name=NAME, cancel_executions=True)))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.ExecuteTask(pb.ExecuteTaskRequest(name=NAME))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert not (await tasks.ListExecutions(pb.ListExecutionsRequest())).executions


async def test_a_task_that_never_stays_the_same_is_not_executed_for_ever(
    tasks: TaskServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="changing", task=GATE))
    meanwhile(monkeypatch, *[lambda: tasks.UpdateTask(CHANGED)] * 50)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.ExecuteTask(pb.ExecuteTaskRequest(name=NAME))
    assert refused.value.code() is grpc.StatusCode.ABORTED
    assert reason_of(refused.value) == "CONCURRENT_CHANGE"
