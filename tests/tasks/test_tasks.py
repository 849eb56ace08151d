"""What callers are promised of tasks, their templates and their dependencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import search_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster_client.structs import values
from stationmaster_server.wire.fields import struct

from tests.tasks.kinds import Steered
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


async def create(tasks: TaskServiceAsyncStub, task_id: str, **fields: Any) -> pb.Task:
    """A task of the kind `steered`."""
    payload = struct(fields.pop("payload", {}))
    task = pb.Task(kind="steered", payload=payload, **fields)
    return await tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, task=task))


async def run(tasks: TaskServiceAsyncStub, task_id: str, **variables: Any) -> pb.Execution:
    """Execute a task and wait for its end."""
    request = pb.ExecuteTaskRequest(name=f"tasks/{task_id}", variables=struct(variables))
    return await ended(tasks, (await tasks.ExecuteTask(request)).name)


async def ended(tasks: TaskServiceAsyncStub, name: str) -> pb.Execution:
    """An execution at its end."""
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


async def depend(tasks: TaskServiceAsyncStub, task: str, on: str, policy: str = "UNSPECIFIED") -> pb.TaskDependency:
    """Add a dependency."""
    number = pb.DependencyFailurePolicy.Value(f"DEPENDENCY_FAILURE_POLICY_{policy}")
    return await tasks.AddDependency(
        pb.AddDependencyRequest(task=f"tasks/{task}", depends_on=f"tasks/{on}", on_failure=number)
    )


async def executions_of(tasks: TaskServiceAsyncStub, task: str) -> list[pb.Execution]:
    """Those of a task, the newest first."""
    page = await tasks.ListExecutions(pb.ListExecutionsRequest(filter=f'task = "tasks/{task}"'))
    return list(page.executions)


async def test_templates_are_filled_in_with_typed_variables(tasks: TaskServiceAsyncStub) -> None:
    variables = [
        pb.VariableDeclaration(name="who", required=True),
        pb.VariableDeclaration(name="times", type=pb.VARIABLE_TYPE_INTEGER, default_value=struct({"v": 2}).fields["v"]),
    ]
    await create(tasks, "greet", payload={"text": "Hello {{ who }}", "steps": "{{ times }}"}, variables=variables)
    execution = await run(tasks, "greet", who="Ada")
    assert values(execution.payload) == {"text": "Hello Ada", "steps": "2"}
    assert values(execution.variables) == {"who": "Ada", "times": 2}
    assert values(execution.result)["text"] == "Hello Ada"


async def test_all_missing_variables_are_named(tasks: TaskServiceAsyncStub) -> None:
    variables = [pb.VariableDeclaration(name=name, required=True) for name in ("one", "two")]
    await create(tasks, "both", payload={"text": "{{ one }}{{ two }}"}, variables=variables)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/both"))
    assert "variables.one" in (refused.value.details() or "")
    assert "variables.two" in (refused.value.details() or "")


async def test_payload_is_bounded_when_it_is_filled_in_too(tasks: TaskServiceAsyncStub) -> None:
    declared = [pb.VariableDeclaration(name="a"), pb.VariableDeclaration(name="b", type=pb.VARIABLE_TYPE_LIST)]
    task = pb.Task(kind="webhook", payload=struct({"url": "https://x.test/", "body": ["{{ a }}", "{{ b }}"] * 150}))
    task.variables.extend(declared)
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="big", task=task))
    small = {"a": "-" * 500, "b": ["-" * 500]}
    await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/big", variables=struct(small)))
    for large in ({"a": "-" * 3000}, {"b": ["-" * 3000]}, {"b": [1] * 200}):
        for call in (tasks.ExecuteTask, tasks.RenderTask):
            request = {tasks.ExecuteTask: pb.ExecuteTaskRequest, tasks.RenderTask: pb.RenderTaskRequest}[call]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(request(name="tasks/big", variables=struct(large)))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "262144" in (refused.value.details() or ""), large
    assert len(await executions_of(tasks, "big")) == 1


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"payload": {"text": "{{ unknown }}"}}, "task.payload.text"),
        ({"payload": {"text": "{% if %}"}}, "task.payload.text"),
        ({"payload": {"fail": "many"}}, "task.payload.fail"),
        ({"schedule": pb.Schedule(cron="61 * * * *")}, "task.schedule.cron"),
        ({"schedule": pb.Schedule(cron="* * * * *", time_zone="Mars/Olympus")}, "task.schedule.time_zone"),
        ({"variables": [pb.VariableDeclaration(name="a"), pb.VariableDeclaration(name="a")]}, "task.variables[1].name"),
    ],
)
async def test_bad_definition_is_refused_by_its_place(
    tasks: TaskServiceAsyncStub, fields: dict[str, Any], place: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await create(tasks, "bad", **fields)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert place in (refused.value.details() or "")


async def test_search_finds_tasks_by_their_words(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, "nightly-crawl", display_name="Crawl the handbook", payload={"text": "zebra"})
    await create(tasks, "other", description="nothing of the sort")
    for words in ("handbook", "zebra", "nightly"):
        page = await tasks.SearchTasks(pb.SearchTasksRequest(query=words))
        assert [hit.task.name for hit in page.hits] == ["tasks/nightly-crawl"], words
    assert "**handbook**" in (await tasks.SearchTasks(pb.SearchTasksRequest(query="handbook"))).hits[0].snippet
    for mode in (search_pb2.SEARCH_MODE_TEXT, search_pb2.SEARCH_MODE_HYBRID):
        request = pb.SearchTasksRequest(query="zebra", mode=mode)
        assert (await tasks.SearchTasks(request)).hits[0].snippet == "Crawl the handbook · **zebra**"


async def test_dependency_that_closes_a_cycle_is_refused_with_the_whole_path(tasks: TaskServiceAsyncStub) -> None:
    for task_id in ("a", "b", "c"):
        await create(tasks, task_id)
    await depend(tasks, "a", "b")
    await depend(tasks, "b", "c")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await depend(tasks, "c", "a")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "tasks/c -> tasks/a -> tasks/b -> tasks/c" in (refused.value.details() or "")
    checked = await tasks.CheckDependencies(pb.CheckDependenciesRequest(name="tasks/c", candidate="tasks/a"))
    assert list(checked.cycle) == ["tasks/c", "tasks/a", "tasks/b", "tasks/c"]


async def test_a_task_that_needs_values_is_not_started_by_others(tasks: TaskServiceAsyncStub) -> None:
    needs = [pb.VariableDeclaration(name="b", required=True)]
    await create(tasks, "first")
    await create(tasks, "typed", payload={"text": "{{ b }}"}, variables=needs)
    await create(tasks, "gated", variables=needs, dependency_mode=pb.DEPENDENCY_MODE_GATE)
    await depend(tasks, "gated", "first")
    why = "and can give no value to b: give them defaults"

    async def refused(call: grpc.aio.UnaryUnaryCall[Any, Any]) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert why in (refusal.value.details() or "")

    for dry_run in (True, False):
        request = pb.AddDependencyRequest(task="tasks/typed", depends_on="tasks/first", validate_only=dry_run)
        await refused(tasks.AddDependency(request))
        starts = pb.Task(name="tasks/gated", dependency_mode=pb.DEPENDENCY_MODE_START)
        mask = FieldMask(paths=["dependency_mode"])
        await refused(tasks.UpdateTask(pb.UpdateTaskRequest(task=starts, update_mask=mask, validate_only=dry_run)))


async def test_chain_of_dependencies_has_fifty_steps_at_most(tasks: TaskServiceAsyncStub) -> None:
    for number in range(52):
        await create(tasks, f"t{number}")
    for number in range(50):
        await depend(tasks, f"t{number + 1}", f"t{number}")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await depend(tasks, "t51", "t50")
    assert "51 steps" in (refused.value.details() or "")


async def test_task_starts_once_all_it_depends_on_has_succeeded(tasks: TaskServiceAsyncStub) -> None:
    for task_id in ("one", "two", "after"):
        await create(tasks, task_id)
    await depend(tasks, "after", "one")
    await depend(tasks, "after", "two")
    await run(tasks, "one")
    assert await executions_of(tasks, "after") == []
    await run(tasks, "two")

    async def started() -> bool:
        return len(await executions_of(tasks, "after")) == 1

    await until(started)
    (execution,) = await executions_of(tasks, "after")
    assert execution.trigger == pb.EXECUTION_TRIGGER_DEPENDENCY
    assert (await ended(tasks, execution.name)).state == pb.EXECUTION_STATE_SUCCEEDED
    await run(tasks, "one")  # the other has not succeeded since
    assert len(await executions_of(tasks, "after")) == 1


async def test_execution_waits_for_what_its_task_depends_on(tasks: TaskServiceAsyncStub, steered: Steered) -> None:
    await create(tasks, "first", payload={"gate": "first"})
    await create(tasks, "second")
    await depend(tasks, "second", "first")
    first = await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/first"))
    second = await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/second"))
    assert second.state == pb.EXECUTION_STATE_BLOCKED
    steered.gate("first").set()
    await ended(tasks, first.name)
    assert (await ended(tasks, second.name)).state == pb.EXECUTION_STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("policy", "state"),
    [("SKIP", pb.EXECUTION_STATE_CANCELLED), ("RUN_ANYWAY", pb.EXECUTION_STATE_SUCCEEDED)],
)
async def test_failure_policy_decides_about_what_waits(
    tasks: TaskServiceAsyncStub, policy: str, state: pb.ExecutionState.ValueType
) -> None:
    await create(tasks, "first", payload={"fail": 9, "retryable": False})
    await create(tasks, "second")
    await depend(tasks, "second", "first", policy)
    second = await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/second"))
    assert (second.state, second.message) == (pb.EXECUTION_STATE_BLOCKED, "waits for tasks/first")
    await run(tasks, "first")
    assert (await ended(tasks, second.name)).state == state


async def test_who_is_skipped_or_kept_waiting_is_told_which_task_failed(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, "first", payload={"fail": 9, "retryable": False})
    waiting = {}
    for policy in ("SKIP", "BLOCK"):
        name = policy.lower()
        await create(tasks, name)
        await depend(tasks, name, "first", policy)
        waiting[policy] = (await tasks.ExecuteTask(pb.ExecuteTaskRequest(name=f"tasks/{name}"))).name
    await run(tasks, "first")
    skipped = await ended(tasks, waiting["SKIP"])
    assert (skipped.reason, skipped.message) == ("DEPENDENCY_FAILED", "tasks/first ended as FAILED")
    assert list(skipped.failed_attempts) == []
    request = pb.WatchExecutionRequest(name=skipped.name)
    events = [event async for answer in tasks.WatchExecution(request) for event in answer.events]
    messages = [event.execution_state_changed.message for event in events]
    assert messages == ["waits for tasks/first", "tasks/first ended as FAILED"]
    blocked = await tasks.GetExecution(pb.GetExecutionRequest(name=waiting["BLOCK"]))
    assert blocked.message == "waits for tasks/first, which ended as FAILED"
    listed = await tasks.ListExecutions(pb.ListExecutionsRequest(filter='state = "BLOCKED"'))
    assert [one.message for one in listed.executions] == [blocked.message]


async def test_task_that_others_depend_on_is_not_deleted(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, "base")
    await create(tasks, "top")
    await depend(tasks, "top", "base")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.DeleteTask(pb.DeleteTaskRequest(name="tasks/base"))
    assert "tasks/top depends on it" in (refused.value.details() or "")
    await tasks.RemoveDependency(pb.RemoveDependencyRequest(task="tasks/top", depends_on="tasks/base"))
    await tasks.DeleteTask(pb.DeleteTaskRequest(name="tasks/base"))


async def test_backfill_executes_each_time_of_the_past_once(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, "hourly", schedule=pb.Schedule(cron="0 * * * *"), payload={"text": "{{ scheduled_time }}"})
    request = pb.BackfillTaskRequest(name="tasks/hourly")
    request.start_time.FromJsonString("2026-03-01T00:00:00Z")
    request.end_time.FromJsonString("2026-03-01T05:00:00Z")
    first = await tasks.BackfillTask(request)
    assert len(first.names) == 5
    results = [values((await ended(tasks, name)).result)["text"] for name in first.names]
    assert results == [f"2026-03-01T0{hour}:00:00+00:00" for hour in range(5)]
    again = await tasks.BackfillTask(request)
    assert (len(again.names), again.skipped_count) == (0, 5)


async def test_repeated_request_gets_its_first_answer_though_the_task_is_gone(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, "hourly", schedule=pb.Schedule(cron="0 * * * *"), payload={"text": "hello"})
    execute = pb.ExecuteTaskRequest(name="tasks/hourly", request_id=str(uuid4()))
    update = pb.UpdateTaskRequest(task=pb.Task(name="tasks/hourly", display_name="Hourly"), request_id=str(uuid4()))
    backfill = pb.BackfillTaskRequest(name="tasks/hourly", request_id=str(uuid4()))
    backfill.start_time.FromJsonString("2026-03-01T00:00:00Z")
    backfill.end_time.FromJsonString("2026-03-01T02:00:00Z")

    async def answers() -> list[object]:
        return [await tasks.ExecuteTask(execute), await tasks.UpdateTask(update), await tasks.BackfillTask(backfill)]

    first = await answers()
    await tasks.DeleteTask(pb.DeleteTaskRequest(name="tasks/hourly"))
    assert await answers() == first


async def test_a_task_is_deleted_with_everything_that_waits_for_its_turn(
    tasks: TaskServiceAsyncStub, steered: Steered
) -> None:
    task = pb.Task(kind="steered", payload=struct({"gate": "never"}), schedule=pb.Schedule(cron="* * * * *"))
    task.options.concurrency.max_running = 2
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="busy", task=task))
    past = pb.BackfillTaskRequest(name="tasks/busy")
    past.start_time.FromJsonString("2026-03-01T00:00:00Z")
    past.end_time.FromJsonString("2026-03-01T08:00:00Z")
    names = (await tasks.BackfillTask(past)).names
    assert len(names) == 480

    async def two_run() -> bool:
        return len(steered.begun) == 2

    await until(two_run)
    await tasks.DeleteTask(pb.DeleteTaskRequest(name="tasks/busy", cancel_executions=True))

    async def all_cancelled() -> bool:
        left = await tasks.ListExecutions(pb.ListExecutionsRequest(filter='state != "CANCELLED"'))
        return not left.executions

    await until(all_cancelled)
    assert len(steered.begun) == 2


async def test_what_is_wrong_with_a_payload_is_told_without_words_of_python(tasks: TaskServiceAsyncStub) -> None:
    async def said(kind: str, **payload: Any) -> str:
        task = pb.Task(kind=kind, payload=struct(payload))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await tasks.CreateTask(pb.CreateTaskRequest(task_id="wrong", task=task))
        return refused.value.details() or ""

    assert await said("crawl", start_urls="http://x/") == (
        "task.payload.start_urls: is to be a list; on the command line: -p 'start_urls[]=…', once for each item"
    )
    of_item = await said("crawl", start_urls=["ftp://x/"])
    assert "task.payload.start_urls.0: " in of_item
    assert "at least" not in of_item
    assert "needs at least 1 of them" in await said("crawl", start_urls=[])
    assert "what.0: must be 'sessions', 'messages'" in await said("export", what=["nothing"])
    assert "start_time: is to be a time: 2026-" in await said("export", what=["tasks"], start_time="yesterday")
    assert await said("webhook", url="http://127.0.0.1:1/", headers={"webhook-id": "1"}) == (
        "task.payload.headers.webhook-id: is a header that the server writes itself; leave it out"
    )
    assert "task.payload.max_pages: must be at most 10000 on this server" in await said(
        "crawl", start_urls=["http://x/"], max_pages=50_000
    )
    misspelt = await said("steered", txt="hello")
    assert "task.payload.txt: there is no such field (did you mean text?); there are: fail, gate" in misspelt
    assert "agent: does not fit: write small letters" in await said("prompt", agent="No Body", prompt="x")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.CreateTask(pb.CreateTaskRequest(task_id="Bad Name!", task=pb.Task(kind="steered")))
    assert "task_id: does not fit: write small letters, digits and -" in (refused.value.details() or "")
    often = pb.Task(kind="steered", schedule=pb.Schedule(every=Duration(seconds=5)))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.CreateTask(pb.CreateTaskRequest(task_id="often", task=often))
    assert "must be at least 10 s and at most 365 days" in (refused.value.details() or "")
