"""What callers are promised of executions."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import grpc
import pypdf
import pytest
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import session_pb2, storage_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.session_pb2_grpc import SessionServiceStub
from stationmaster.v1.storage_pb2_grpc import StorageServiceStub
from stationmaster_client.structs import values
from stationmaster_server.tasks.kinds.base import Done, Job
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer
from tests.tasks.kinds import Steered
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

FAST = pb.ExecutionOptions(retry=pb.ExecutionRetryPolicy(initial_delay=Duration(nanos=1_000_000)))


def spec(**payload: Any) -> pb.ExecutionSpec:
    """An execution of the kind `steered`."""
    return pb.ExecutionSpec(kind="steered", payload=struct(payload), options=FAST)


async def submit(tasks: TaskServiceAsyncStub, **payload: Any) -> pb.Execution:
    """Submit one."""
    return await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec(**payload)))


async def watched(tasks: TaskServiceAsyncStub, name: str, after: int = 0) -> list[Any]:
    """Its events, to its end."""
    request = pb.WatchExecutionRequest(name=name, after_sequence=after)
    return [event async for answer in tasks.WatchExecution(request) for event in answer.events]


async def test_execution_tells_of_every_step_and_ends_with_its_result(tasks: TaskServiceAsyncStub) -> None:
    execution = await submit(tasks, text="hello", steps=3)
    events = await watched(tasks, execution.name)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds[:3] == ["execution_state_changed", "execution_state_changed", "execution_log"]
    states = [event.execution_state_changed.state for event in events if event.HasField("execution_state_changed")]
    assert states == ["QUEUED", "RUNNING", "SUCCEEDED"]
    last = [event.execution_progress for event in events if event.HasField("execution_progress")][-1]
    assert (last.fraction, dict(last.counters)) == (1.0, {"steps": 3})
    ended = await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))
    assert ended.state == pb.EXECUTION_STATE_SUCCEEDED
    assert dict(ended.progress.counters) == {"steps": 3}, "also what came after the last heartbeat"
    assert values(ended.result) == {"text": "hello", "attempt": 1}
    assert ended.end_time.ToDatetime() >= ended.start_time.ToDatetime()


@pytest.mark.parametrize("answer", ["half a pair: \ud83d", float("nan"), object()])
async def test_a_result_that_cannot_be_stored_fails_the_execution_once_and_says_why(
    tasks: TaskServiceAsyncStub, steered: Steered, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    async def run(job: Job[Any]) -> Done:
        return Done({"answer": answer})

    monkeypatch.setattr(steered, "run", run)
    execution = await submit(tasks)
    await watched(tasks, execution.name)
    ended = await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))
    assert (ended.state, ended.reason) == (pb.EXECUTION_STATE_FAILED, "NOT_RETRYABLE")
    (attempt,) = ended.failed_attempts
    assert attempt.reason == "BAD_RESULT"
    assert "no JSON that can be stored" in attempt.error


async def test_watch_resumes_after_any_sequence(tasks: TaskServiceAsyncStub) -> None:
    execution = await submit(tasks, text="hello", steps=3)
    events = await watched(tasks, execution.name)
    for after in range(len(events)):
        rest = await watched(tasks, execution.name, after)
        assert [event.SerializeToString() for event in rest] == [e.SerializeToString() for e in events[after:]]
    assert await watched(tasks, execution.name, len(events)) == []


async def test_failed_attempts_are_repeated_and_told(tasks: TaskServiceAsyncStub) -> None:
    execution = await submit(tasks, fail=2)
    events = await watched(tasks, execution.name)
    states = [event.execution_state_changed for event in events if event.HasField("execution_state_changed")]
    assert [state.state for state in states] == [
        "QUEUED", "RUNNING", "QUEUED", "RUNNING", "QUEUED", "RUNNING", "SUCCEEDED",
    ]  # fmt: skip
    assert states[2].reason == "TOLD"
    assert states[2].HasField("retry_time")
    ended = await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))
    assert [attempt.error for attempt in ended.failed_attempts] == [
        "attempt 1 fails as it was told",
        "attempt 2 fails as it was told",
    ]


def changes(events: list[Any]) -> list[tuple[str, int, str]]:
    """The changes of state that events tell of: state, attempt, reason."""
    told = [event.execution_state_changed for event in events if event.HasField("execution_state_changed")]
    return [(one.state, one.attempt, one.reason) for one in told]


async def test_what_is_handed_back_is_told_as_queued_before_it_runs_again(tasks: TaskServiceAsyncStub) -> None:
    execution = await submit(tasks, text="hello", later=2, fail=1)
    events = await watched(tasks, execution.name)
    assert changes(events) == [
        ("QUEUED", 0, ""),
        ("RUNNING", 1, ""),
        ("QUEUED", 1, "HANDED_BACK"),
        ("RUNNING", 1, ""),
        ("QUEUED", 1, "HANDED_BACK"),
        ("RUNNING", 1, ""),
        ("QUEUED", 1, "TOLD"),
        ("RUNNING", 2, ""),
        ("SUCCEEDED", 2, ""),
    ]
    waits = [event.execution_state_changed for event in events if event.execution_state_changed.reason == "HANDED_BACK"]
    assert all(one.HasField("retry_time") for one in waits)
    assert not any(one.message for one in waits)
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds[1:4] == ["execution_state_changed", "execution_log", "execution_state_changed"], (
        "all it said is before"
    )


async def test_a_report_tells_an_attempt_once_however_often_it_was_handed_back(
    tasks: TaskServiceAsyncStub, station: RunningServer
) -> None:
    wanted = spec(later=3, fail=1)
    wanted.options.report_formats.append(storage_pb2.REPORT_FORMAT_JSON)
    execution = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=wanted))

    async def reported() -> str:
        reports = (await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))).reports
        return reports[0] if reports else ""

    name = await until(reported, seconds=60)
    async with station.channel() as channel:
        answers = StorageServiceStub(channel).DownloadReport(storage_pb2.DownloadReportRequest(name=name))
        report = json.loads(b"".join([answer.data async for answer in answers]))
    assert [(one["number"], one["state"]) for one in report["attempts"]] == [(1, "FAILED"), (2, "SUCCEEDED")]


async def test_failed_execution_rests_and_is_retried(tasks: TaskServiceAsyncStub) -> None:
    execution = await submit(tasks, fail=3)
    await watched(tasks, execution.name)
    ended = await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))
    assert ended.state == pb.EXECUTION_STATE_FAILED
    assert ended.message == "attempt 3 fails as it was told"
    retried = await tasks.RetryExecution(pb.RetryExecutionRequest(filter='reason = "ATTEMPTS_EXHAUSTED"'))
    assert list(retried.names) == [execution.name]

    async def failed_again() -> bool:
        now = await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))
        return now.state == pb.EXECUTION_STATE_FAILED and len(now.failed_attempts) == 6

    await until(failed_again)
    events = await watched(tasks, execution.name)
    assert [e.execution_state_changed.state for e in events].count("FAILED") == 2


async def test_one_that_has_not_failed_cannot_be_retried(tasks: TaskServiceAsyncStub) -> None:
    execution = await submit(tasks)
    await watched(tasks, execution.name)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.RetryExecution(pb.RetryExecutionRequest(name=execution.name))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "is SUCCEEDED and cannot become QUEUED" in (refused.value.details() or "")


async def test_running_execution_is_cancelled(tasks: TaskServiceAsyncStub, steered: Steered) -> None:
    execution = await submit(tasks, gate="never")

    async def runs() -> bool:
        return bool(steered.begun)

    await until(runs)
    await tasks.CancelExecution(pb.CancelExecutionRequest(name=execution.name, reason="not needed"))
    events = await watched(tasks, execution.name)
    assert events[-1].execution_state_changed.state == "CANCELLED"
    ended = await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))
    assert (ended.state, ended.reason) == (pb.EXECUTION_STATE_CANCELLED, "CANCELLED_BY_CALLER")


async def test_bad_payload_is_refused_by_the_path_of_what_is_wrong(tasks: TaskServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await submit(tasks, fail="often", colour="red")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "execution.payload.fail" in (refused.value.details() or "")
    assert "execution.payload.colour" in (refused.value.details() or "")


async def test_batch_is_all_or_nothing(tasks: TaskServiceAsyncStub) -> None:
    wrong = [spec(fail="x"), spec(colour="red")]
    request = pb.BatchSubmitExecutionsRequest(executions=[spec(text=str(n)) for n in range(50)] + wrong)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.BatchSubmitExecutions(request)
    for place in ("executions[50].payload.fail", "executions[51].payload.colour"):
        assert place in (refused.value.details() or ""), "all that is wrong is named"
    del request.executions[50:]
    answer = await tasks.BatchSubmitExecutions(request)
    assert len(set(answer.names)) == 50

    async def all_ended() -> bool:
        page = await tasks.ListExecutions(pb.ListExecutionsRequest(filter='state = "SUCCEEDED"'))
        return len(page.executions) == 50

    await until(all_ended)


async def test_idempotency_key_returns_the_first_execution(tasks: TaskServiceAsyncStub, steered: Steered) -> None:
    wanted = spec(text="once")
    wanted.idempotency_key = "order-17"
    first = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=wanted))
    second = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=wanted))
    assert first.name == second.name
    assert (first.existing, second.existing) == (False, True)
    await watched(tasks, first.name)
    assert len(steered.begun) == 1


async def test_idempotency_key_of_something_else_is_refused_and_names_the_execution(
    tasks: TaskServiceAsyncStub, steered: Steered
) -> None:
    wanted = spec(text="once")
    wanted.idempotency_key = "order-17"
    first = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=wanted))
    other = spec(text="twice")
    other.idempotency_key = "order-17"
    declared = [pb.VariableDeclaration(name="who")]
    task = pb.Task(kind="steered", payload=struct({"text": "{{ who }}"}), variables=declared)
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="greet", task=task))
    run = pb.ExecuteTaskRequest(name="tasks/greet", variables=struct({"who": "Ada"}), idempotency_key="order-17")

    async def refusal(call: grpc.aio.UnaryUnaryCall[Any, Any]) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
        return refused.value.details() or ""

    assert f"'order-17' is that of {first.name}, which was submitted with another payload" in await refusal(
        tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=other))
    )
    batch = pb.BatchSubmitExecutionsRequest(executions=[wanted, other])
    assert "another payload" in await refusal(tasks.BatchSubmitExecutions(batch))
    assert "submitted with no task" in await refusal(tasks.ExecuteTask(run))
    run.idempotency_key = "greeting-1"
    made = await tasks.ExecuteTask(run)
    task.payload.update({"text": "changed for {{ who }}"})
    task.name = "tasks/greet"
    await tasks.UpdateTask(pb.UpdateTaskRequest(task=task))
    assert (await tasks.ExecuteTask(run)).name == made.name
    run.variables.update({"who": "Bob"})
    assert "other variables" in await refusal(tasks.ExecuteTask(run))


async def test_taken_id_is_refused_reused_or_replaced(tasks: TaskServiceAsyncStub, steered: Steered) -> None:
    wanted = pb.SubmitExecutionRequest(
        execution=spec(gate="never"), execution_id="01936f5e-0000-7000-8000-000000000001"
    )
    first = await tasks.SubmitExecution(wanted)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.SubmitExecution(wanted)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    wanted.on_conflict = pb.ID_CONFLICT_POLICY_USE_EXISTING
    assert (await tasks.SubmitExecution(wanted)).name == first.name
    wanted.on_conflict = pb.ID_CONFLICT_POLICY_TERMINATE_EXISTING
    wanted.execution.CopyFrom(spec(text="new"))
    await tasks.SubmitExecution(wanted)
    events = await watched(tasks, first.name)
    assert events[-1].execution_state_changed.state == "SUCCEEDED"
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_of_many_that_race_for_an_id_one_wins_and_the_others_are_told_of_it(tasks: TaskServiceAsyncStub) -> None:
    wanted = pb.SubmitExecutionRequest(
        execution=spec(text="hello"), execution_id="01936f5e-0000-7000-8000-000000000003"
    )
    racing = [tasks.SubmitExecution(wanted) for _ in range(10)]
    answers = await asyncio.gather(*racing, return_exceptions=True)
    lost = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
    assert len(lost) == 9
    told = "Execution 'executions/01936f5e-0000-7000-8000-000000000003' exists already"
    assert {(one.code(), one.details()) for one in lost} == {(grpc.StatusCode.ALREADY_EXISTS, told)}


async def test_what_was_replaced_says_nothing_more(tasks: TaskServiceAsyncStub, steered: Steered) -> None:
    wanted = pb.SubmitExecutionRequest(
        execution=spec(gate="old", last_words="I am still here"), execution_id="01936f5e-0000-7000-8000-000000000002"
    )
    execution = await tasks.SubmitExecution(wanted)

    async def runs() -> bool:
        return bool(steered.begun)

    await until(runs)
    wanted.on_conflict = pb.ID_CONFLICT_POLICY_TERMINATE_EXISTING
    wanted.execution.CopyFrom(spec(text="new"))
    wanted.execution.run_time.GetCurrentTime()
    wanted.execution.run_time.seconds += 3600
    await tasks.SubmitExecution(wanted)
    steered.gate("old").set()
    # Whatever the old attempt writes is flushed before the end of one that begins later.
    await watched(tasks, (await submit(tasks, text="later")).name)
    await tasks.CancelExecution(pb.CancelExecutionRequest(name=execution.name))
    events = await watched(tasks, execution.name)
    assert [event.execution_state_changed.state for event in events] == ["QUEUED", "RUNNING", "QUEUED", "CANCELLED"]


async def test_prompt_runs_in_a_session_of_its_own(tasks: TaskServiceAsyncStub, station: RunningServer) -> None:
    request = pb.SubmitExecutionRequest(
        execution=pb.ExecutionSpec(kind="prompt", payload=struct({"model": "demo", "prompt": "Say hello."}))
    )
    execution = await tasks.SubmitExecution(request)
    events = await watched(tasks, execution.name)
    ended = await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))
    assert ended.state == pb.EXECUTION_STATE_SUCCEEDED, ended.message
    messages = [event.message_added.message for event in events if event.HasField("message_added")]
    assert messages[-1].parts[0].text == values(ended.result)["text"]
    assert ended.session == values(ended.result)["session"]
    assert messages[-1].name.startswith(ended.session)


async def test_the_session_of_what_was_replaced_is_ended(tasks: TaskServiceAsyncStub, station: RunningServer) -> None:
    payload = struct({"model": "demo", "prompt": "/slow 50\n/say 1000"})
    wanted = pb.SubmitExecutionRequest(
        execution=pb.ExecutionSpec(kind="prompt", payload=payload), execution_id="01936f5e-0000-7000-8000-000000000003"
    )
    execution = await tasks.SubmitExecution(wanted)

    async def session() -> str:
        return (await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))).session

    name = await until(session)
    wanted.on_conflict = pb.ID_CONFLICT_POLICY_TERMINATE_EXISTING
    wanted.execution.CopyFrom(spec(text="new"))
    await tasks.SubmitExecution(wanted)
    async with station.channel() as channel:
        ended = await SessionServiceStub(channel).GetSession(session_pb2.GetSessionRequest(name=name))
    assert ended.state == session_pb2.SESSION_STATE_TERMINATED


async def test_reports_of_every_format_are_made_after_the_end(
    tasks: TaskServiceAsyncStub, station: RunningServer
) -> None:
    request = pb.SubmitExecutionRequest(
        execution=pb.ExecutionSpec(kind="prompt", payload=struct({"model": "demo", "prompt": "Say hello."}))
    )
    request.execution.options.report_formats.extend(storage_pb2.ReportFormat.values()[1:])
    execution = await tasks.SubmitExecution(request)

    async def reported() -> bool:
        return len((await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))).reports) == 4

    await until(reported, seconds=60)
    text = values((await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))).result)["text"]
    files: dict[int, bytes] = {}
    async with station.channel() as channel:
        storage = StorageServiceStub(channel)
        listed = await storage.ListReports(storage_pb2.ListReportsRequest(filter=f'execution = "{execution.name}"'))
        for report in listed.reports:
            answers = storage.DownloadReport(storage_pb2.DownloadReportRequest(name=report.name))
            files[report.format] = b"".join([answer.data async for answer in answers])
    assert text.split(":")[0] in files[storage_pb2.REPORT_FORMAT_MARKDOWN].decode()
    assert text in json.loads(files[storage_pb2.REPORT_FORMAT_JSON])["conversation"][-1]["text"]
    pages = pypdf.PdfReader(io.BytesIO(files[storage_pb2.REPORT_FORMAT_PDF])).pages
    assert text.split()[0] in "".join(page.extract_text() for page in pages)


async def test_an_attempt_that_takes_too_long_is_told_by_the_next_one(tasks: TaskServiceAsyncStub) -> None:
    options = pb.ExecutionOptions()
    options.CopyFrom(FAST)
    options.retry.max_attempts = 2
    options.timeouts.start_to_close.FromSeconds(1)
    work = pb.ExecutionSpec(kind="steered", payload=struct({"gate": "never"}), options=options)
    execution = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=work))
    events = await watched(tasks, execution.name)
    states = [event.execution_state_changed for event in events if event.HasField("execution_state_changed")]
    assert [(state.state, state.reason) for state in states[-2:]] == [
        ("RUNNING", "START_TO_CLOSE"),
        ("FAILED", "ATTEMPTS_EXHAUSTED"),
    ]
    assert "longer than" in states[-2].message


async def test_an_unknown_kind_is_refused_by_its_place(tasks: TaskServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=pb.ExecutionSpec(kind="nothing")))
    assert (refused.value.details() or "").startswith("execution.kind: there is no kind 'nothing'")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.CreateTask(pb.CreateTaskRequest(task_id="bad", task=pb.Task(kind="nothing")))
    assert (refused.value.details() or "").startswith("task.kind: there is no kind 'nothing'")


async def test_what_waits_for_an_execution_that_is_replaced_is_looked_at_again(tasks: TaskServiceAsyncStub) -> None:
    for task_id in ("above", "below"):
        await tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, task=pb.Task(kind="steered")))
    await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/below", depends_on="tasks/above"))
    above, below = pb.ExecuteTaskRequest(name="tasks/above"), pb.ExecuteTaskRequest(name="tasks/below")
    await watched(tasks, (await tasks.ExecuteTask(above)).name)
    gated = pb.Task(name="tasks/above", payload=struct({"gate": "never"}))
    await tasks.UpdateTask(pb.UpdateTaskRequest(task=gated))
    runs, waits = await tasks.ExecuteTask(above), await tasks.ExecuteTask(below)
    assert waits.state == pb.EXECUTION_STATE_BLOCKED
    replacing = pb.SubmitExecutionRequest(execution=spec(text="ad hoc"), execution_id=runs.name.partition("/")[2])
    replacing.on_conflict = pb.ID_CONFLICT_POLICY_TERMINATE_EXISTING
    await tasks.SubmitExecution(replacing)  # now the newest of `above` is the one that succeeded
    assert (await watched(tasks, waits.name))[-1].execution_state_changed.state == "SUCCEEDED"
