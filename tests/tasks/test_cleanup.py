"""The kind `cleanup`, from a caller of TaskService to what is left in the database and on the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import agent_pb2, identity_pb2, storage_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client import Client
from stationmaster_client.structs import values
from stationmaster_server.tasks.cleanup import cleaner
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

FAST = pb.ExecutionOptions(retry=pb.ExecutionRetryPolicy(initial_delay=Duration(nanos=1_000_000)))


@pytest_asyncio.fixture
async def sql(station: RunningServer) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The database, as its owner."""
    connection = await asyncpg.connect(station.app.database_url)
    yield connection
    await connection.close()


async def ran(
    tasks: TaskServiceAsyncStub, kind: str, options: pb.ExecutionOptions = FAST, **payload: Any
) -> pb.Execution:
    """An execution at its end."""
    spec = pb.ExecutionSpec(kind=kind, payload=struct(payload), options=options)
    name = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))).name
    return await ended(tasks, name)


async def ended(tasks: TaskServiceAsyncStub, name: str) -> pb.Execution:
    """An execution at its end."""
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


async def cleaned(
    tasks: TaskServiceAsyncStub, *targets: str, dry_run: bool | None = False, days: float = 30
) -> dict[str, Any]:
    """The counts of a clean-up."""
    asked: dict[str, Any] = {"targets": list(targets), "older_than_days": days}
    execution = await ran(tasks, "cleanup", **(asked if dry_run is None else asked | {"dry_run": dry_run}))
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED, execution.message
    counts: dict[str, Any] = values(execution.result)["counts"]
    return counts


async def age(sql: asyncpg.Connection[Any], *names: str, days: int = 40) -> None:
    """Let executions be old: all there are, or these."""
    ids = [name.partition("/")[2] for name in names]
    for table, key in (("executions", "id"), ("work_items", "item_id"), ("streams", "stream_id")):
        over = ", finished_at = finished_at - make_interval(days => $1)" if table == "work_items" else ""
        await sql.execute(
            f"UPDATE {table} SET created_at = created_at - make_interval(days => $1){over}"
            f" WHERE $2::uuid[] = '{{}}' OR {key} = ANY($2::uuid[])",
            days,
            ids,
        )


async def names(tasks: TaskServiceAsyncStub) -> set[str]:
    """The executions of other kinds that there are."""
    page = await tasks.ListExecutions(pb.ListExecutionsRequest(filter='kind != "cleanup"', page_size=1000))
    return {execution.name for execution in page.executions}


async def count(sql: asyncpg.Connection[Any], table: str, key: str, name: str) -> int:
    """How many rows of a table belong to something."""
    return int(await sql.fetchval(f"SELECT count(*) FROM {table} WHERE {key} = $1", name.partition("/")[2]))


async def test_old_executions_go_with_all_that_they_left(
    station: RunningServer, tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any]
) -> None:
    options = pb.ExecutionOptions(report_formats=[storage_pb2.REPORT_FORMAT_JSON])
    old = await ran(tasks, "steered", options, text="hello", steps=3)
    exported = await ran(tasks, "export", what=["executions"])

    async def reported() -> bool:
        return len((await tasks.GetExecution(pb.GetExecutionRequest(name=old.name))).reports) == 1

    await until(reported, seconds=60)
    new = await ran(tasks, "steered", text="new")
    await age(sql, old.name, exported.name)
    folders = list((station.settings.data_folder / "workspaces" / "executions").glob("*/*"))
    assert [folder.name for folder in folders] == [exported.name.partition("/")[2]]

    async def gone() -> bool:
        # A report that is just being finished keeps its execution until the next clean-up.
        await cleaned(tasks, "executions")
        return await names(tasks) == {new.name}

    await until(gone)
    left = {"executions": "id", "work_items": "item_id", "streams": "stream_id", "events": "stream_id"}
    for table, key in (left | {"reports": "execution_id"}).items():
        assert await count(sql, table, key, old.name) == 0
    assert await count(sql, "events", "stream_id", new.name) > 0
    assert not folders[0].exists()
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await tasks.GetExecution(pb.GetExecutionRequest(name=old.name))
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def test_nothing_is_deleted_unless_it_is_said(tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any]) -> None:
    old = await ran(tasks, "steered")
    await age(sql, old.name)
    assert await cleaned(tasks, "executions", dry_run=None) == {"executions": 1}
    assert await names(tasks) == {old.name}
    counts = await cleaned(tasks, "executions")
    assert counts["executions"] == 1
    assert counts["events"] >= 3


async def test_what_is_still_needed_stays(tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any]) -> None:
    """What runs, what is young, the newest of a task, and what a key may still be answered with."""
    running = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(
        execution=pb.ExecutionSpec(kind="steered", payload=struct({"gate": "never"}))))).name  # fmt: skip
    keyed = pb.ExecutionSpec(kind="steered", idempotency_key="order-1", idempotency_ttl=Duration(seconds=86_400))
    answered = await ended(tasks, (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=keyed))).name)
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="daily", task=pb.Task(kind="steered")))
    first, last = [
        (await ended(tasks, (await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/daily"))).name)).name
        for _ in "ab"
    ]
    await age(sql)
    young = await ran(tasks, "steered")
    counts = await cleaned(tasks, "executions")
    assert counts["executions"] == 1
    assert await names(tasks) == {running, answered.name, last, young.name}
    assert first not in await names(tasks)


async def test_executions_whose_work_was_forgotten_go_too(
    tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any]
) -> None:
    old = await ran(tasks, "steered")
    await age(sql, old.name)
    await sql.execute("DELETE FROM work_items WHERE item_id = $1", old.name.partition("/")[2])
    assert (await cleaned(tasks, "executions"))["executions"] == 1
    assert await count(sql, "events", "stream_id", old.name) == 0


async def test_what_an_interrupted_clean_up_left_is_found_by_the_next(
    tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any]
) -> None:
    old = await ran(tasks, "steered")
    await age(sql, old.name)
    for table, key in (("executions", "id"), ("work_items", "item_id")):
        await sql.execute(f"DELETE FROM {table} WHERE {key} = $1", old.name.partition("/")[2])
    counts = await cleaned(tasks, "executions")
    assert counts["events"] >= 3
    assert await count(sql, "events", "stream_id", old.name) == await count(sql, "streams", "stream_id", old.name) == 0


async def test_large_numbers_are_deleted_in_batches(
    tasks: TaskServiceAsyncStub, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaner, "BATCH", 7)
    monkeypatch.setattr(cleaner, "_ROWS", 10)
    specs = [pb.ExecutionSpec(kind="steered", payload=struct({"text": "hello"})) for _ in range(40)]
    await tasks.BatchSubmitExecutions(pb.BatchSubmitExecutionsRequest(executions=specs))

    async def over() -> bool:
        return await sql.fetchval("SELECT count(*) = 40 FROM work_items WHERE followed_up") is True

    await until(over)
    await age(sql)
    counts = await cleaned(tasks, "executions")
    assert counts["executions"] == 40
    assert await names(tasks) == set()
    entries = await sql.fetch("SELECT details FROM audit_events WHERE action = 'execution.delete'")
    assert len(entries) == 6


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
