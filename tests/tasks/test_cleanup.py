"""The kind `cleanup`, from a caller of TaskService to what is left in the database and on the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from stationmaster.v1 import agent_pb2, identity_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client import Client
from stationmaster_client.structs import values
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer
from tests.tasks.aged import age, cleaned, ended, names, ran
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


@pytest_asyncio.fixture
async def sql(station: RunningServer) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The database, as its owner."""
    connection = await asyncpg.connect(station.app.database_url)
    yield connection
    await connection.close()


async def test_nothing_is_deleted_unless_it_is_said(tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any]) -> None:
    old = await ran(tasks, "steered")
    await age(sql, old.name)
    assert await cleaned(tasks, "executions", dry_run=None) == {"executions": 1}
    assert await names(tasks) == {old.name}
    counts = await cleaned(tasks, "executions")
    assert counts["executions"] == 1
    assert counts["events"] >= 3


async def test_deltas_and_workspaces_of_ended_sessions_go_and_their_messages_stay(
    station: RunningServer, tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any]
) -> None:
    async with Client.connect(station.target, station.admin_key) as client:
        sessions = []
        for _ in range(2):
            session = await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo"))
            async with client.sessions.send(session.name, "Say hello.") as sent:
                async for _ in sent:
                    pass
            sessions.append(session.name)
        await client.files.upload(sessions[0], "counted.txt", b"12345")
        await client.sessions.terminate(sessions[0])
        await sql.execute("UPDATE sessions SET updated_at = updated_at - interval '40 days'")
        folders = [station.settings.data_folder / "workspaces" / name.partition("/")[2] for name in sessions]
        (folders[0] / "file.txt").write_text("hello")
        outside = station.settings.data_folder / "outside.txt"
        outside.write_text("stays")
        (folders[0] / "link").symlink_to(outside)
        would = await cleaned(tasks, "deltas", "workspaces", dry_run=True)
        assert would["workspaces"] == 1
        assert would["deltas"] > 0
        assert await cleaned(tasks, "deltas", "workspaces") == would
        assert [folder.exists() for folder in folders] == [False, True]
        assert outside.exists()
        me = (await client.whoami()).user.name

        async def free() -> bool:
            return (await client.files.usage(me)).used_bytes == 0

        await until(free)
        assert len([message async for message in client.sessions.messages(sessions[0])]) == 2
    deltas = "SELECT count(*) FROM events WHERE stream_id = $1 AND kind LIKE '%_delta'"
    assert await sql.fetchval(deltas, sessions[0].partition("/")[2]) == 0
    assert await sql.fetchval(deltas, sessions[1].partition("/")[2]) > 0
    audited = await sql.fetch("SELECT action FROM audit_events WHERE action IN ('workspace.delete', 'session.compact')")
    assert {row["action"] for row in audited} == {"workspace.delete", "session.compact"}


async def test_request_ids_that_have_expired_go(tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any]) -> None:
    for number in range(3):
        request = pb.CreateTaskRequest(task_id=f"task-{number}", task=pb.Task(kind="steered"))
        request.request_id = f"01936f5e-0000-7000-8000-00000000000{number}"
        await tasks.CreateTask(request)
    await sql.execute("""UPDATE request_ids SET created_at = now() - interval '25 hours'
                         WHERE request_id <> '01936f5e-0000-7000-8000-000000000002'""")
    assert await cleaned(tasks, "request_ids") == {"request_ids": 2}
    assert await sql.fetchval("SELECT count(*) FROM request_ids") == 1


async def test_only_administrators_clean_up_at_submission_and_when_it_runs(
    station: RunningServer, tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any]
) -> None:
    payload = struct({"targets": ["executions"], "older_than_days": 30})
    async with Client.connect(station.target, station.admin_key) as admin:
        user = await admin.users.create(display_name="Ada", role=identity_pb2.ROLE_MEMBER)
        key = (await admin.keys.create(user=user.name)).secret
        async with station.channel(key) as channel:
            stub = TaskServiceStub(channel)
            calls: list[Callable[[], Any]] = [
                lambda: ran(stub, "cleanup", **values(payload)),
                lambda: stub.CreateTask(
                    pb.CreateTaskRequest(task_id="clean", task=pb.Task(kind="cleanup", payload=payload))
                ),
            ]
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call()
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert "ADMIN or OWNER" in (refused.value.details() or "")
        await tasks.CreateTask(pb.CreateTaskRequest(task_id="clean", task=pb.Task(kind="cleanup", payload=payload)))
        await sql.execute("UPDATE users SET role = 'member' WHERE id <> $1", user.name.partition("/")[2])
        # The server's cache of callers still takes the key for an administrator's: what runs looks for itself.
        execution = await ended(tasks, (await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/clean"))).name)
    assert execution.state == pb.EXECUTION_STATE_FAILED
    (attempt,) = execution.failed_attempts
    assert attempt.reason == "ROLE_INSUFFICIENT"
