"""Executions that ended long ago are forgotten by one rule, with all that they left: by the hour, and by clean-ups."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import agent_pb2, storage_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster_client import Client
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.db.engine import Database
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.sessions.workspaces import Workspaces
from stationmaster_server.tasks.cleanup import forgetting
from stationmaster_server.tasks.cleanup.forgetting import Forgetting, Tools, forget_ended
from stationmaster_server.tasks.workspaces import ExecutionWorkspaces
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer, running, server_settings
from tests.tasks.aged import age, cleaned, count, ended, names, ran
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

KEPT = timedelta(days=30)
LEFT = {
    "executions": "id",
    "work_items": "item_id",
    "streams": "stream_id",
    "events": "stream_id",
    "crawl_runs": "execution_id",
    "crawl_pages": "execution_id",
    "reports": "execution_id",
    "forgotten_executions": "execution_id",
}
Sql = Any


@pytest_asyncio.fixture
async def sql(station: RunningServer) -> AsyncIterator[Sql]:
    """The database, as its owner."""
    connection = await asyncpg.connect(station.app.database_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def tools(station: RunningServer, database: Database) -> AsyncIterator[Tools]:
    """What the server of the test forgets with."""
    pools, folder = Pools(PoolSettings()), station.settings.data_folder / "workspaces"
    yield Tools(database, AuditLog(database), pools, Workspaces(folder), ExecutionWorkspaces(folder / "executions"))
    await pools.close(timedelta(0))


@pytest.fixture(params=["chore", "clean-up"])
def forget(
    request: pytest.FixtureRequest, tasks: TaskServiceAsyncStub, tools: Tools
) -> Callable[[], Awaitable[object]]:
    """Forget what ended more than 30 days ago, in either of two ways."""
    if request.param == "chore":
        return lambda: forget_ended(tools, KEPT)
    return lambda: cleaned(tasks, "executions")


async def nothing_left(sql: Sql, *executions: str) -> bool:
    """Whether no table has a row of them."""
    return sum([await count(sql, table, key, name) for table, key in LEFT.items() for name in executions]) == 0


async def exported(tasks: TaskServiceAsyncStub, station: RunningServer, session: str = "") -> tuple[str, Path]:
    """An export, and the folder that it wrote."""
    execution = await ran(tasks, "export", what=["executions"], session=session)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED, execution.message
    name = execution.name.partition("/")[2]
    (folder,) = (station.settings.data_folder / "workspaces").rglob(f"exports/{name}")
    return execution.name, folder


async def a_session(station: RunningServer) -> str:
    """A session of the administrator."""
    async with Client.connect(station.target, station.admin_key) as client:
        return (await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo"))).name


async def reported(tasks: TaskServiceAsyncStub, **payload: Any) -> str:
    """An execution that has its report."""
    options = pb.ExecutionOptions(report_formats=[storage_pb2.REPORT_FORMAT_JSON])
    name = (await ran(tasks, "steered", options, **payload)).name

    async def there() -> bool:
        return len((await tasks.GetExecution(pb.GetExecutionRequest(name=name))).reports) == 1

    await until(there, seconds=60)
    return name


async def no_report_is_being_made(sql: Sql) -> None:
    """Until the item of the last report has ended: it keeps its execution."""

    async def none() -> bool:
        sql_text = "SELECT count(*) = 0 FROM work_items WHERE kind = 'task_report' AND finished_at IS NULL"
        return await sql.fetchval(sql_text) is True

    await until(none)


async def test_old_executions_go_with_all_that_they_left(
    station: RunningServer,
    tasks: TaskServiceAsyncStub,
    sql: Sql,
    forget: Callable[[], Awaitable[object]],
) -> None:
    old = await reported(tasks, text="hello", steps=3)
    own, own_folder = await exported(tasks, station)
    into, into_folder = await exported(tasks, station, await a_session(station))
    (into_folder.parent.parent / "notes.txt").write_text("stays")
    kept, kept_folder = await exported(tasks, station)
    new = await reported(tasks, text="new")
    await no_report_is_being_made(sql)
    await age(sql, old, own, into)
    await forget()
    assert await names(tasks) == {new, kept}
    assert await nothing_left(sql, old, own, into)
    assert await count(sql, "events", "stream_id", new) > 0
    assert await count(sql, "reports", "execution_id", new) == 1
    assert [own_folder.exists(), into_folder.exists(), kept_folder.exists()] == [False, False, True]
    assert not own_folder.parent.exists()
    assert (into_folder.parent.parent / "notes.txt").exists()
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await tasks.GetExecution(pb.GetExecutionRequest(name=old))
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    audited = await sql.fetch("SELECT details FROM audit_events WHERE action = 'execution.delete'")
    assert {name for row in audited for name in json.loads(row["details"])["executions"]} == {old, own, into}


async def test_what_is_still_needed_stays(
    tasks: TaskServiceAsyncStub, sql: Sql, forget: Callable[[], Awaitable[object]]
) -> None:
    """What runs, what is young, the newest of a task, and what a key may still be answered with."""
    running = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(
        execution=pb.ExecutionSpec(kind="steered", payload=struct({"gate": "never"}))))).name  # fmt: skip
    keyed = pb.ExecutionSpec(kind="steered", idempotency_key="order-1", idempotency_ttl=Duration(seconds=86_400))
    answered = await ended(tasks, (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=keyed))).name)
    first, last = await executed_twice(tasks, "daily")
    await age(sql)
    young = await ran(tasks, "steered")
    await forget()
    assert await names(tasks) == {running, answered.name, last, young.name}
    assert first not in await names(tasks)


async def executed_twice(tasks: TaskServiceAsyncStub, task_id: str) -> list[str]:
    """A new task, and its two executions."""
    await tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, task=pb.Task(kind="steered")))
    request = pb.ExecuteTaskRequest(name=f"tasks/{task_id}")
    return [(await ended(tasks, (await tasks.ExecuteTask(request)).name)).name for _ in range(2)]


async def test_a_dependency_is_decided_as_before_by_what_is_left(
    tasks: TaskServiceAsyncStub, sql: Sql, forget: Callable[[], Awaitable[object]]
) -> None:
    _, newest = await executed_twice(tasks, "first")
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="second", task=pb.Task(kind="steered")))
    await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/second", depends_on="tasks/first"))
    await age(sql)
    await forget()
    assert await names(tasks) == {newest}
    second = await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/second"))
    assert second.state != pb.EXECUTION_STATE_BLOCKED
    assert (await ended(tasks, second.name)).state == pb.EXECUTION_STATE_SUCCEEDED


async def test_executions_whose_work_was_forgotten_go_too(
    tasks: TaskServiceAsyncStub, sql: Sql, forget: Callable[[], Awaitable[object]]
) -> None:
    old = await ran(tasks, "steered")
    await age(sql, old.name)
    await sql.execute("DELETE FROM work_items WHERE item_id = $1", old.name.partition("/")[2])
    await forget()
    assert await names(tasks) == set()
    assert await nothing_left(sql, old.name)


async def test_large_numbers_are_deleted_in_batches(
    tasks: TaskServiceAsyncStub,
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
    forget: Callable[[], Awaitable[object]],
) -> None:
    monkeypatch.setattr(forgetting, "BATCH", 7)
    monkeypatch.setattr(forgetting, "_ROWS", 10)
    specs = [pb.ExecutionSpec(kind="steered", payload=struct({"text": "hello"})) for _ in range(40)]
    await tasks.BatchSubmitExecutions(pb.BatchSubmitExecutionsRequest(executions=specs))

    async def over() -> bool:
        return await sql.fetchval("SELECT count(*) = 40 FROM work_items WHERE followed_up") is True

    await until(over)
    await age(sql)
    await forget()
    assert await names(tasks) == set()
    entries = await sql.fetch("SELECT details FROM audit_events WHERE action = 'execution.delete'")
    assert len(entries) == 6
    assert sum(json.loads(entry["details"])["count"] for entry in entries) == 40


async def test_wherever_it_was_interrupted_the_next_one_finishes_it(
    station: RunningServer, tasks: TaskServiceAsyncStub, sql: Sql, tools: Tools
) -> None:
    """As if its server had been killed after any of its steps."""
    organization_id = await sql.fetchval("SELECT organization_id FROM organizations")
    steps, stopped_at = 0, 0
    while stopped_at == steps:
        old = await reported(tasks, text="hello")
        own, folder = await exported(tasks, station)
        await no_report_is_being_made(sql)
        await age(sql, old, own)
        steps, stopped_at = steps + 1, 0
        interrupted = Forgetting(tools, organization_id, datetime.now(UTC) - KEPT).forget()
        async for _ in interrupted:
            stopped_at += 1
            if stopped_at == steps:
                break
        await interrupted.aclose()
        await sql.execute("UPDATE forgotten_executions SET claimed_at = claimed_at - interval '2 hours'")
        await forget_ended(tools, KEPT)
        assert await nothing_left(sql, old, own)
        assert not folder.exists()
    assert steps > 3


async def test_what_somebody_forgets_at_this_moment_is_left_to_them(
    station: RunningServer, tasks: TaskServiceAsyncStub, sql: Sql, tools: Tools
) -> None:
    organization_id = await sql.fetchval("SELECT organization_id FROM organizations")
    old, folder = await exported(tasks, station)
    await age(sql, old)
    first = Forgetting(tools, organization_id, datetime.now(UTC) - KEPT).forget()
    await anext(first)
    await forget_ended(tools, KEPT)
    assert folder.exists()
    async for _ in first:
        pass
    assert not folder.exists()
    assert await nothing_left(sql, old)


@pytest.mark.parametrize("swapped", ["exports", "execution"])
async def test_a_link_in_the_place_of_exported_files_leads_nowhere(
    station: RunningServer, tasks: TaskServiceAsyncStub, sql: Sql, tools: Tools, swapped: str
) -> None:
    old, folder = await exported(tasks, station, await a_session(station))
    outside = station.settings.data_folder / "outside"
    place = folder.parent if swapped == "exports" else folder
    place.rename(outside)
    place.symlink_to(outside)
    await age(sql, old)
    await forget_ended(tools, KEPT)
    assert await nothing_left(sql, old)
    assert list(outside.rglob("manifest.json"))


class Stuck(ExecutionWorkspaces):
    """Workspaces on a disk that is out of order, as long as it is."""

    out_of_order: str | None = None

    def remove(self, organization_id: UUID, execution_id: UUID) -> bool:
        """Remove, or fail."""
        if f"executions/{execution_id}" == self.out_of_order:
            raise PermissionError(f"{execution_id} cannot be removed")
        return super().remove(organization_id, execution_id)


async def test_files_that_cannot_be_removed_hold_up_nobody_and_are_removed_later(
    station: RunningServer, tasks: TaskServiceAsyncStub, sql: Sql, tools: Tools
) -> None:
    disk = Stuck(station.settings.data_folder / "workspaces" / "executions")
    disk.out_of_order, folder = await exported(tasks, station)
    stuck = disk.out_of_order
    other, gone = await exported(tasks, station)
    await age(sql, stuck, other)
    await forget_ended(replace(tools, executions=disk), KEPT)
    assert await nothing_left(sql, other)
    assert (gone.exists(), folder.exists()) == (False, True)
    disk.out_of_order = None
    await sql.execute("UPDATE forgotten_executions SET claimed_at = claimed_at - interval '2 hours'")
    await forget_ended(replace(tools, executions=disk), KEPT)
    assert await nothing_left(sql, stuck)
    assert not folder.exists()


async def test_a_server_forgets_by_itself(
    station: RunningServer, tasks: TaskServiceAsyncStub, sql: Sql, database_url: str, tmp_path: Path
) -> None:
    old, new = (await ran(tasks, "steered")).name, (await ran(tasks, "steered")).name
    await age(sql, old)
    settings = server_settings(tmp_path / "second", database_url, tasks={"keep_executions": "720h"})

    async def done_for_this_hour() -> bool:
        """By the first server, which forgets nothing."""
        freed = "DELETE FROM background_leases WHERE service_id = 'execution-cleanup' AND expires_at IS NULL"
        return bool(await sql.execute(freed) == "DELETE 1")

    await until(done_for_this_hour)
    async with running(settings):
        await until(lambda: nothing_left(sql, old), seconds=60)
    assert await names(tasks) == {new}
