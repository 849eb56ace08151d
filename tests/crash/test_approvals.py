"""Approvals outlive servers and nights: asked today, answered tomorrow by way of a server that did not run then."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from stationmaster.v1 import agent_pb2, event_pb2, session_pb2
from stationmaster_client import Client, errors

from tests.fixtures.server import RunningServer, ServerProcess, StartServer, running, server_settings
from tests.waiting import until

WRITE = '/tool files.write {"path": "a.txt", "content": "one"}'
DENY, WAIT, PAUSE = (
    agent_pb2.ON_PERMISSION_TIMEOUT_DENY,
    agent_pb2.ON_PERMISSION_TIMEOUT_WAIT,
    agent_pb2.ON_PERMISSION_TIMEOUT_PAUSE,
)


async def ask(
    client: Client, deadline: timedelta, on_timeout: agent_pb2.OnPermissionTimeout.ValueType
) -> session_pb2.PermissionRequest:
    """Let a turn ask for a permission."""
    spec = agent_pb2.AgentSpec(model="demo", tools=["files.*"])
    spec.permissions.deadline.FromTimedelta(deadline)
    spec.permissions.on_timeout = on_timeout
    session = await client.sessions.create(spec=spec)
    async with client.sessions.send(session.name, WRITE, stop_at_permission=True) as sent:
        async for _ in sent:
            pass
    (request,) = [item async for item in client.permissions.list(session.name)]
    return request


async def let_a_day_pass(database_url: str) -> None:
    """Move all that the database knows of the waiting turn a day into the past.

    The deadlines of permissions and the times of work are compared with the database's clock, which no test can turn;
    moved back by a day, what is stored stands to it as it will tomorrow.
    """
    day = "- interval '1 day'"
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute(
                f"UPDATE permission_requests SET created_at = created_at {day}, expires_at = expires_at {day}"
            )
            await connection.execute(f"UPDATE turns SET created_at = created_at {day}, started_at = started_at {day}")
            await connection.execute(
                f"UPDATE sessions SET created_at = created_at {day}, updated_at = updated_at {day}"
            )
            await connection.execute(
                f"""UPDATE work_items SET created_at = created_at {day}, started_at = started_at {day},
                                          run_at = run_at {day}"""
            )
    finally:
        await connection.close()


async def turn_of(client: Client, request: session_pb2.PermissionRequest) -> session_pb2.Turn:
    """The turn, once it has ended."""

    async def ended() -> session_pb2.Turn | None:
        turn = await client.sessions.turn(request.turn)
        return turn if turn.HasField("finish_time") else None

    found = await until(ended)
    assert found is not None
    return found


async def runs_of(client: Client, session: str) -> int:
    """How often a tool was called in a session, by its stream."""
    found = await client.sessions.get(session)
    count = 0
    async with asyncio.timeout(20), client.sessions.watch(session, after=0) as stream:
        async for event in stream:
            count += event.HasField("tool_call_started")
            if event.sequence >= found.last_sequence:
                break
    return count


@pytest.mark.parametrize("on_timeout", [DENY, WAIT], ids=["deadline of two days", "no deadline"])
async def test_a_permission_is_answered_a_day_and_two_restarts_later(
    on_timeout: agent_pb2.OnPermissionTimeout.ValueType, server_process: StartServer, database_url: str
) -> None:
    server = await server_process(database_url=database_url)
    async with Client.connect(server.target, server.admin_key) as client:
        request = await ask(client, timedelta(days=2), on_timeout)
    for end in (ServerProcess.kill, ServerProcess.stop):
        await end(server)
        await let_a_day_pass(database_url) if end is ServerProcess.kill else None
        server = await server_process(database_url=database_url)
    async with Client.connect(server.target, server.admin_key) as client:
        await client.permissions.allow(request.name)
        assert (await turn_of(client, request)).state == event_pb2.TURN_STATE_COMPLETED
        session = request.name.partition("/permissionRequests/")[0]
        assert await runs_of(client, session) == 1
    assert [path.read_text() for path in server.data_folder.rglob("a.txt")] == ["one"]


@pytest.mark.parametrize("on_timeout", [DENY, PAUSE, WAIT], ids=["DENY", "PAUSE", "WAIT"])
async def test_a_deadline_that_passed_while_no_server_ran_ends_as_its_policy_says(
    on_timeout: agent_pb2.OnPermissionTimeout.ValueType, database_url: str, tmp_path: Path
) -> None:
    settings = server_settings(tmp_path / "data", database_url)
    async with running(settings) as server, Client.connect(server.target, server.admin_key) as client:
        request = await ask(client, timedelta(hours=1), on_timeout)
    await let_a_day_pass(database_url)
    session = request.name.partition("/permissionRequests/")[0]
    async with running(settings) as server, Client.connect(server.target, server.admin_key) as client:
        if on_timeout == WAIT:
            await client.permissions.allow(request.name)
            assert (await turn_of(client, request)).state == event_pb2.TURN_STATE_COMPLETED
            assert await runs_of(client, session) == 1
            return
        turn = await turn_of(client, request)
        (answered,) = [item async for item in client.permissions.list(session)]
        found = await client.sessions.get(session)
        assert answered.state == event_pb2.PERMISSION_STATE_EXPIRED
        paused = on_timeout == PAUSE
        assert turn.state == (event_pb2.TURN_STATE_CANCELLED if paused else event_pb2.TURN_STATE_COMPLETED)
        assert found.state == (session_pb2.SESSION_STATE_PAUSED if paused else session_pb2.SESSION_STATE_ACTIVE)
        with pytest.raises(errors.FailedPrecondition) as refused:
            await client.permissions.allow(request.name)
        assert refused.value.reason == "PERMISSION_ALREADY_RESOLVED"
    assert list((tmp_path / "data").rglob("a.txt")) == []


async def test_of_two_answers_at_once_by_two_servers_one_wins_and_the_tool_runs_once(
    server: RunningServer, database_url: str, tmp_path: Path
) -> None:
    other_settings = server_settings(tmp_path / "other", database_url)
    async with (
        running(other_settings) as other,
        Client.connect(server.target, server.admin_key) as here,
        Client.connect(other.target, server.admin_key) as there,
    ):
        for _ in range(5):
            request = await ask(here, timedelta(hours=1), DENY)
            answers = await asyncio.gather(
                here.permissions.allow(request.name), there.permissions.allow(request.name), return_exceptions=True
            )
            (refused,) = [answer for answer in answers if isinstance(answer, BaseException)]
            assert isinstance(refused, errors.FailedPrecondition)
            assert refused.reason == "PERMISSION_ALREADY_RESOLVED"
            assert (await turn_of(here, request)).state == event_pb2.TURN_STATE_COMPLETED
            assert await runs_of(here, request.name.partition("/permissionRequests/")[0]) == 1
