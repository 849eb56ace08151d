"""Executions that many submit at once: committed together, and each as if it came alone."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from stationmaster.v1 import audit_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.audit_pb2_grpc import AuditServiceStub
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.tasks import submitting
from stationmaster_server.work.queue import WorkQueue

from tests.fixtures.server import RunningServer, running, server_settings
from tests.rpc.served import reason_of
from tests.tasks.kinds import Steered
from tests.tasks.test_executions import spec
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

MANY = 40


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many went in each transaction."""
    sizes: list[int] = []
    whole = submitting.Submitting._together

    async def noted(self: Any, tenant: Any, batch: Any) -> Any:
        sizes.append(len(batch))
        return await whole(self, tenant, batch)

    monkeypatch.setattr(submitting.Submitting, "_together", noted)
    return sizes


def request(text: str, request_id: str = "") -> pb.SubmitExecutionRequest:
    return pb.SubmitExecutionRequest(execution=spec(text=text), request_id=request_id or str(uuid.uuid4()))


async def test_those_that_come_at_once_are_all_made_each_with_its_event(
    station: RunningServer, tasks: TaskServiceAsyncStub, together: list[int]
) -> None:
    made = await asyncio.gather(*(tasks.SubmitExecution(request(f"text {number}")) for number in range(MANY)))
    assert max(together) > 1
    assert len({execution.name for execution in made}) == MANY
    assert [execution.payload["text"] for execution in made] == [f"text {number}" for number in range(MANY)]
    async with station.channel() as channel:
        asked = audit_pb2.ListAuditEventsRequest(filter='action = "execution.submit"', page_size=100)
        listed = await AuditServiceStub(channel).ListAuditEvents(asked)
    assert {event.resource for event in listed.audit_events} == {execution.name for execution in made}

    async def all_ended() -> bool:
        asked = pb.ListExecutionsRequest(filter='state = "SUCCEEDED"', page_size=100)
        return len((await tasks.ListExecutions(asked)).executions) == MANY

    await until(all_ended)


async def test_repeats_among_them_get_the_first_answer_and_other_requests_their_refusal(
    tasks: TaskServiceAsyncStub, together: list[int]
) -> None:
    ids = [str(uuid.uuid4()) for _ in range(MANY // 2)]
    twice = [request(f"text {number}", one) for number, one in enumerate(ids)] * 2
    answers = await asyncio.gather(*(tasks.SubmitExecution(one) for one in twice))
    assert max(together) > 1
    names = [execution.name for execution in answers]
    assert names[: MANY // 2] == names[MANY // 2 :]
    assert len(set(names)) == MANY // 2
    again = await asyncio.gather(*(tasks.SubmitExecution(one) for one in twice))  # later, and all at once
    assert [execution.name for execution in again] == names
    others = [request("another", one) for one in ids]
    refused = await asyncio.gather(*(tasks.SubmitExecution(one) for one in others), return_exceptions=True)
    assert {error.code() for error in refused if isinstance(error, grpc.aio.AioRpcError)} == {
        grpc.StatusCode.INVALID_ARGUMENT
    }
    assert len((await tasks.ListExecutions(pb.ListExecutionsRequest(page_size=100))).executions) == MANY // 2


async def test_what_is_refused_among_them_takes_no_other_with_it(
    tasks: TaskServiceAsyncStub, together: list[int]
) -> None:
    bad = pb.SubmitExecutionRequest(execution=pb.ExecutionSpec(kind="nothing"), request_id=str(uuid.uuid4()))
    mixed = [request(f"text {number}") if number % 2 else bad for number in range(MANY)]
    answers = await asyncio.gather(*(tasks.SubmitExecution(one) for one in mixed), return_exceptions=True)
    assert max(together) > 1
    assert [isinstance(answer, pb.Execution) for answer in answers] == [bool(number % 2) for number in range(MANY)]


async def test_a_queue_that_fills_up_takes_as_many_as_fit(
    database_url: str, tmp_path: Path, together: list[int], monkeypatch: pytest.MonkeyPatch, steered: Steered
) -> None:
    monkeypatch.setattr("stationmaster_server.app.engines.WorkQueue", partial(WorkQueue, queue_limit=10))
    later = [request(f"text {number}") for number in range(MANY)]
    for one in later:
        one.execution.run_time.FromJsonString("2100-01-01T00:00:00Z")
    async with running(server_settings(tmp_path / "data", database_url)) as server, server.channel() as channel:
        tasks = TaskServiceStub(channel)
        answers = await asyncio.gather(*(tasks.SubmitExecution(one) for one in later), return_exceptions=True)
    assert max(together) > 1
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert {(error.code(), reason_of(error)) for error in refused} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    }
    assert len(refused) == MANY - 10


async def test_a_caller_that_goes_away_takes_no_other_with_it(tasks: TaskServiceAsyncStub, together: list[int]) -> None:
    calls = [tasks.SubmitExecution(request(f"text {number}")) for number in range(MANY)]
    waiting = [asyncio.ensure_future(_answer(call)) for call in calls]
    await waiting[0]
    for call in calls[1::2]:
        call.cancel()
    answers = await asyncio.gather(*waiting[::2])
    assert len({execution.name for execution in answers}) == MANY // 2


async def _answer(call: Any) -> pb.Execution:
    answer: pb.Execution = await call
    return answer
