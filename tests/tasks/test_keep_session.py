"""What becomes of the session of an execution that does not end well: of one that is kept, and of one that is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import event_pb2, session_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client import Client
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer, StartServer
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

LONG = "/slow 20\n/say 3000"
ASKS = '/tool files.write {"path": "a.txt", "content": "a"}'
ONCE = pb.ExecutionRetryPolicy(max_attempts=1, initial_delay=Duration(nanos=1_000_000))
ABOUT_A_SECOND = 3.0
"""One, and what two cores that others use as well may make of it."""
ACTIVE, TERMINATED = session_pb2.SESSION_STATE_ACTIVE, session_pb2.SESSION_STATE_TERMINATED


@pytest_asyncio.fixture
async def client(station: RunningServer) -> AsyncIterator[Client]:
    """A client of the whole server."""
    async with Client.connect(station.target, station.admin_key) as client:
        yield client


def prompting(text: str, *, keep: bool = True, **options: Any) -> pb.SubmitExecutionRequest:
    """A prompt to the demo model."""
    payload = struct({"model": "demo", "prompt": text, "tools": ["files.*"], "keep_session": keep})
    spec = pb.ExecutionSpec(kind="prompt", payload=payload, options=pb.ExecutionOptions(**options))
    return pb.SubmitExecutionRequest(execution=spec)


async def turn_of(tasks: TaskServiceAsyncStub, client: Client, name: str, *states: Any) -> session_pb2.Turn:
    """The first turn of an execution's session, once it is in one of these states, if any are named."""

    async def there() -> session_pb2.Turn | None:
        session = (await tasks.GetExecution(pb.GetExecutionRequest(name=name))).session
        turns = [turn async for turn in client.sessions.turns(session)] if session else []
        return turns[-1] if turns and (not states or turns[-1].state in states) else None

    turn = await until(there)
    assert turn is not None
    return turn


async def let_go(client: Client, turn: session_pb2.Turn, session_state: Any) -> session_pb2.Turn:
    """The turn as it ended, about a second from now, with its session in a state."""
    session, _, _ = turn.name.partition("/turns/")

    async def over() -> session_pb2.Turn | None:
        (now,) = [one async for one in client.sessions.turns(session) if one.name == turn.name]
        here = (await client.sessions.get(session)).state
        return now if now.HasField("finish_time") and here == session_state else None

    ended = await until(over, seconds=ABOUT_A_SECOND)
    assert ended is not None
    return ended


async def ended(tasks: TaskServiceAsyncStub, name: str) -> pb.Execution:
    """An execution at its end."""
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


@pytest.mark.parametrize(("keep", "state"), [(True, ACTIVE), (False, TERMINATED)])
async def test_the_turn_ends_with_an_execution_that_is_cancelled(
    tasks: TaskServiceAsyncStub, client: Client, keep: bool, state: Any
) -> None:
    execution = await tasks.SubmitExecution(prompting(LONG, keep=keep))
    turn = await turn_of(tasks, client, execution.name, event_pb2.TURN_STATE_RUNNING)
    await tasks.CancelExecution(pb.CancelExecutionRequest(name=execution.name))
    after = await let_go(client, turn, state)
    assert after.state == event_pb2.TURN_STATE_CANCELLED
    assert (await ended(tasks, execution.name)).state == pb.EXECUTION_STATE_CANCELLED


async def test_the_turn_ends_with_an_execution_that_takes_too_long(tasks: TaskServiceAsyncStub, client: Client) -> None:
    limits = pb.ExecutionTimeouts(start_to_close=Duration(seconds=2))
    execution = await tasks.SubmitExecution(prompting(LONG, timeouts=limits, retry=ONCE))
    turn = await turn_of(tasks, client, execution.name)
    failed = await ended(tasks, execution.name)
    assert [attempt.reason for attempt in failed.failed_attempts] == ["START_TO_CLOSE"]
    after = await let_go(client, turn, ACTIVE)
    assert after.state == event_pb2.TURN_STATE_CANCELLED


async def test_the_turn_ends_with_a_cancelled_execution_that_waits_for_a_person(
    tasks: TaskServiceAsyncStub, client: Client
) -> None:
    execution = await tasks.SubmitExecution(prompting(ASKS))
    turn = await turn_of(tasks, client, execution.name, event_pb2.TURN_STATE_AWAITING_PERMISSION)

    async def handed_back() -> bool:
        now = await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))
        return now.state == pb.EXECUTION_STATE_QUEUED

    await until(handed_back)
    await tasks.CancelExecution(pb.CancelExecutionRequest(name=execution.name))
    after = await let_go(client, turn, ACTIVE)
    assert after.state == event_pb2.TURN_STATE_CANCELLED


async def test_the_turn_ends_with_an_execution_that_is_replaced(tasks: TaskServiceAsyncStub, client: Client) -> None:
    wanted = prompting(LONG)
    wanted.execution_id = "01936f5e-0000-7000-8000-000000000001"
    execution = await tasks.SubmitExecution(wanted)
    turn = await turn_of(tasks, client, execution.name, event_pb2.TURN_STATE_RUNNING)
    wanted.on_conflict = pb.ID_CONFLICT_POLICY_TERMINATE_EXISTING
    wanted.execution.CopyFrom(pb.ExecutionSpec(kind="steered"))
    await tasks.SubmitExecution(wanted)
    assert (await let_go(client, turn, ACTIVE)).state == event_pb2.TURN_STATE_CANCELLED


async def test_a_prompt_in_the_place_of_another_has_a_session_of_its_own(
    tasks: TaskServiceAsyncStub, client: Client
) -> None:
    wanted = prompting(LONG, keep=False)
    wanted.execution_id = "01936f5e-0000-7000-8000-000000000002"
    name = (await tasks.SubmitExecution(wanted)).name
    turn = await turn_of(tasks, client, name, event_pb2.TURN_STATE_RUNNING)
    wanted.on_conflict = pb.ID_CONFLICT_POLICY_TERMINATE_EXISTING
    wanted.execution.CopyFrom(prompting("/say 3", keep=False).execution)
    await tasks.SubmitExecution(wanted)
    after = await ended(tasks, name)
    assert after.state == pb.EXECUTION_STATE_SUCCEEDED, after.message
    assert not turn.name.startswith(after.session)
    assert (await let_go(client, turn, TERMINATED)).state == event_pb2.TURN_STATE_CANCELLED


async def test_what_somebody_else_sends_into_the_kept_session_goes_on(
    tasks: TaskServiceAsyncStub, client: Client
) -> None:
    execution = await tasks.SubmitExecution(prompting(LONG))
    turn = await turn_of(tasks, client, execution.name, event_pb2.TURN_STATE_RUNNING)
    session, _, _ = turn.name.partition("/turns/")
    sent = asyncio.create_task(said(client, session, "/say 3"))

    async def queued() -> bool:
        return len([one async for one in client.sessions.turns(session)]) == 2

    await until(queued)
    await tasks.CancelExecution(pb.CancelExecutionRequest(name=execution.name))
    assert await sent == event_pb2.TURN_STATE_COMPLETED
    assert (await let_go(client, turn, ACTIVE)).state == event_pb2.TURN_STATE_CANCELLED


async def said(client: Client, session: str, text: str) -> Any:
    """How the turn of a message ends."""
    async with client.sessions.send(session, text) as events:
        return [event.turn_finished.state async for event in events if event.HasField("turn_finished")][-1]


async def test_a_retry_begins_in_a_new_session(tasks: TaskServiceAsyncStub, client: Client) -> None:
    """And not with the turn that ended when it was given up."""
    limits = pb.ExecutionTimeouts(start_to_close=Duration(seconds=2))
    execution = await tasks.SubmitExecution(prompting(LONG, timeouts=limits, retry=ONCE))
    first = await ended(tasks, execution.name)

    async def again() -> bool:
        answer = await tasks.RetryExecution(pb.RetryExecutionRequest(filter='state = "FAILED"'))
        return list(answer.names) == [execution.name]

    await until(again)

    async def failed_again() -> pb.Execution | None:
        now = await tasks.GetExecution(pb.GetExecutionRequest(name=execution.name))
        return now if len(now.failed_attempts) == 2 else None

    second = await until(failed_again)
    assert second is not None
    assert [attempt.reason for attempt in second.failed_attempts] == ["START_TO_CLOSE", "START_TO_CLOSE"]
    assert second.session != first.session


async def test_the_turn_ends_with_an_execution_that_is_cancelled_after_its_server_was_killed(
    server_process: StartServer, database_url: str
) -> None:
    environment = {"STATIONMASTER_WORK__LEASE": "2s"}
    server = await server_process(database_url=database_url, environment=environment)
    async with server.channel() as channel, Client.connect(server.target, server.admin_key) as client:
        stub: TaskServiceAsyncStub = TaskServiceStub(channel)
        execution = await stub.SubmitExecution(prompting(LONG))
        turn = await turn_of(stub, client, execution.name, event_pb2.TURN_STATE_RUNNING)
    await server.kill()
    server = await server_process(database_url=database_url, environment=environment)
    async with server.channel() as channel, Client.connect(server.target, server.admin_key) as client:
        stub = TaskServiceStub(channel)
        await stub.CancelExecution(pb.CancelExecutionRequest(name=execution.name))
        assert (await ended(stub, execution.name)).state == pb.EXECUTION_STATE_CANCELLED
        after = await let_go(client, turn, ACTIVE)
    assert after.state == event_pb2.TURN_STATE_CANCELLED
