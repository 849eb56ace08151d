"""What one member may not do to what is another's, and what an execution keeps of its task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from stationmaster.v1 import agent_pb2, identity_pb2, session_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.identity_pb2_grpc import IdentityServiceStub
from stationmaster.v1.session_pb2_grpc import SessionServiceStub
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client.structs import values
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer
from tests.tasks.kinds import Steered
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


async def key_of_a_member(station: RunningServer, *scopes: str) -> str:
    """The key of a new member; without scopes it has all of its role."""
    async with station.channel() as channel:
        identity = IdentityServiceStub(channel)
        user = identity_pb2.User(display_name="Member", role=identity_pb2.ROLE_MEMBER)
        made = await identity.CreateUser(identity_pb2.CreateUserRequest(user=user))
        key = identity_pb2.ApiKey(user=made.name, scopes=scopes)
        return (await identity.CreateApiKey(identity_pb2.CreateApiKeyRequest(api_key=key))).secret


@pytest_asyncio.fixture
async def member(station: RunningServer) -> AsyncIterator[TaskServiceAsyncStub]:
    """TaskService as somebody else of the organization calls it."""
    async with station.channel(await key_of_a_member(station)) as channel:
        yield TaskServiceStub(channel)


async def ended(tasks: TaskServiceAsyncStub, name: str) -> pb.Execution:
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


@pytest.mark.parametrize("policy", pb.IdConflictPolicy.values()[1:])
async def test_the_id_of_a_session_cannot_be_taken_for_an_execution(
    station: RunningServer, member: TaskServiceAsyncStub, policy: pb.IdConflictPolicy.ValueType
) -> None:
    async with station.channel() as channel:
        session = session_pb2.Session(spec=agent_pb2.AgentSpec(model="demo"))
        made = await SessionServiceStub(channel).CreateSession(session_pb2.CreateSessionRequest(session=session))
    request = pb.SubmitExecutionRequest(
        execution=pb.ExecutionSpec(kind="steered"), execution_id=made.name.partition("/")[2], on_conflict=policy
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await member.SubmitExecution(request)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_a_task_with_secrets_is_executed_by_its_owner_only(
    tasks: TaskServiceAsyncStub, member: TaskServiceAsyncStub
) -> None:
    payload = struct({"url": "https://{{ host }}/hook", "secret": "whsec_" + "QUJD" * 8})
    host = pb.VariableDeclaration(name="host", required=True)
    task = pb.Task(kind="webhook", payload=payload, variables=[host])
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="hook", task=task))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await member.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/hook", variables=struct({"host": "evil.example"})))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_prompt_needs_the_scopes_of_sessions(station: RunningServer) -> None:
    key = await key_of_a_member(station, "tasks.execute", "tasks.read")
    spec = pb.ExecutionSpec(kind="prompt", payload=struct({"model": "demo", "prompt": "hello"}))
    async with station.channel(key) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await TaskServiceStub(channel).SubmitExecution(pb.SubmitExecutionRequest(execution=spec))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_what_waits_keeps_what_it_was_submitted_with_and_ends_with_its_task(
    tasks: TaskServiceAsyncStub, steered: Steered
) -> None:
    for task_id, payload in (("first", {"gate": "first"}), ("second", {"text": "old {{ scheduled_time }}"})):
        task = pb.Task(kind="steered", payload=struct(payload), schedule=pb.Schedule(cron="0 0 * * *"))
        await tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, task=task))
    await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/second", depends_on="tasks/first"))
    first = await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/first"))
    range_of_time = pb.BackfillTaskRequest(name="tasks/second")
    range_of_time.start_time.FromJsonString("2026-03-01T00:00:00Z")
    range_of_time.end_time.FromJsonString("2026-03-02T00:00:00Z")
    (waiting,) = (await tasks.BackfillTask(range_of_time)).names
    changed = pb.Task(name="tasks/second", payload=struct({"text": "new"}))
    await tasks.UpdateTask(pb.UpdateTaskRequest(task=changed))
    steered.gate("first").set()
    await ended(tasks, first.name)
    assert values((await ended(tasks, waiting)).result)["text"] == "old 2026-03-01T00:00:00+00:00"


async def test_what_waits_for_others_is_cancelled_when_its_task_is_deleted(
    tasks: TaskServiceAsyncStub, steered: Steered
) -> None:
    for task_id in ("first", "second"):
        task = pb.Task(kind="steered", payload=struct({"gate": "never"}))
        await tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, task=task))
    await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/second", depends_on="tasks/first"))
    waiting = await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/second"))
    assert waiting.state == pb.EXECUTION_STATE_BLOCKED
    await tasks.DeleteTask(pb.DeleteTaskRequest(name="tasks/second"))
    assert (await ended(tasks, waiting.name)).reason == "TASK_DELETED"


async def test_more_prompts_than_slots_all_end(tasks: TaskServiceAsyncStub, station: RunningServer) -> None:
    count = 2 * station.settings.work.slots
    specs = [
        pb.ExecutionSpec(kind="prompt", payload=struct({"model": "demo", "prompt": f"/say {number + 1}"}))
        for number in range(count)
    ]
    await tasks.BatchSubmitExecutions(pb.BatchSubmitExecutionsRequest(executions=specs))

    async def all_ended() -> bool:
        page = await tasks.ListExecutions(pb.ListExecutionsRequest(filter='state = "SUCCEEDED"', page_size=1000))
        return len(page.executions) == count

    await until(all_ended, seconds=100)


async def test_a_prompt_that_waits_for_a_person_lets_its_worker_go_and_goes_on(
    tasks: TaskServiceAsyncStub, station: RunningServer
) -> None:
    text = '/tool files.write {"path": "a.txt", "content": "a"}'
    payload = struct({"model": "demo", "prompt": text, "tools": ["files.*"]})
    submitted = await tasks.SubmitExecution(
        pb.SubmitExecutionRequest(execution=pb.ExecutionSpec(kind="prompt", payload=payload))
    )
    async with station.channel() as channel:
        sessions = SessionServiceStub(channel)

        async def asked() -> str:
            page = await sessions.ListPermissionRequests(
                session_pb2.ListPermissionRequestsRequest(parent="sessions/-", filter='state = "PENDING"')
            )
            return page.permission_requests[0].name if page.permission_requests else ""

        request = await until(asked)

        async def handed_back() -> bool:
            now = await tasks.GetExecution(pb.GetExecutionRequest(name=submitted.name))
            return now.state == pb.EXECUTION_STATE_QUEUED

        await until(handed_back)
        await sessions.ResolvePermissionRequest(
            session_pb2.ResolvePermissionRequestRequest(
                name=request, decision=session_pb2.PERMISSION_DECISION_ALLOW_ONCE
            )
        )
    end = await ended(tasks, submitted.name)
    assert (end.state, end.attempt_count) == (pb.EXECUTION_STATE_SUCCEEDED, 1)


async def test_no_member_cancels_what_another_runs_by_its_concurrency_key(
    tasks: TaskServiceAsyncStub, member: TaskServiceAsyncStub, steered: Steered
) -> None:
    only_one = pb.ExecutionConcurrency(key="nightly", max_running=1, strategy=pb.CONCURRENCY_STRATEGY_CANCEL_RUNNING)

    def gated(gate: str) -> pb.SubmitExecutionRequest:
        options = pb.ExecutionOptions(concurrency=only_one)
        spec = pb.ExecutionSpec(kind="steered", payload=struct({"gate": gate}), options=options)
        return pb.SubmitExecutionRequest(execution=spec)

    mine = await tasks.SubmitExecution(gated("mine"))
    await member.SubmitExecution(gated("theirs"))
    replacing = await member.SubmitExecution(gated("theirs again"))
    steered.gate("theirs again").set()
    assert (await ended(member, replacing.name)).state == pb.EXECUTION_STATE_SUCCEEDED
    steered.gate("mine").set()
    assert (await ended(tasks, mine.name)).state == pb.EXECUTION_STATE_SUCCEEDED


@pytest.mark.parametrize("key", ["", "nightly"])
async def test_no_member_cancels_what_another_runs_of_a_task_that_both_may_execute(
    tasks: TaskServiceAsyncStub, member: TaskServiceAsyncStub, steered: Steered, key: str
) -> None:
    only_one = pb.ExecutionConcurrency(key=key, max_running=1)
    task = pb.Task(kind="steered", payload=struct({"gate": "mine"}), options=pb.ExecutionOptions(concurrency=only_one))
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="mine", task=task))
    mine = await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/mine"))
    only_one.strategy = pb.CONCURRENCY_STRATEGY_CANCEL_RUNNING
    own = pb.ExecuteTaskRequest(name="tasks/mine", options=pb.ExecutionOptions(concurrency=only_one))
    replaced, replacing = await member.ExecuteTask(own), await member.ExecuteTask(own)
    assert (await ended(member, replaced.name)).reason == "CANCELLED_BY_NEWER"
    steered.gate("mine").set()
    for stub, name in ((member, replacing.name), (tasks, mine.name)):
        assert (await ended(stub, name)).state == pb.EXECUTION_STATE_SUCCEEDED


async def test_a_dependency_on_a_task_is_removed_by_the_owner_of_either(
    tasks: TaskServiceAsyncStub, member: TaskServiceAsyncStub
) -> None:
    theirs = pb.Task(kind="steered", payload=struct({}))
    await member.CreateTask(pb.CreateTaskRequest(task_id="theirs", task=theirs))
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="mine", task=theirs))
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="other", task=theirs))
    await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/mine", depends_on="tasks/theirs"))
    await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/mine", depends_on="tasks/other"))
    await member.RemoveDependency(pb.RemoveDependencyRequest(task="tasks/mine", depends_on="tasks/theirs"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await member.RemoveDependency(pb.RemoveDependencyRequest(task="tasks/mine", depends_on="tasks/other"))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await member.DeleteTask(pb.DeleteTaskRequest(name="tasks/theirs"))
