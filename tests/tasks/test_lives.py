"""The newest execution of a task decides, and a task has no other life than its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import task_pb2 as pb
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.identity.system import system_caller
from stationmaster_server.tasks import dependency_store, execution_store
from stationmaster_server.tasks.execution_store import NewRow
from stationmaster_server.tasks.model import DependencyState, FailurePolicy, Spec, Trigger
from stationmaster_server.tasks.schedule_model import Schedule
from stationmaster_server.tasks.work import new_work
from stationmaster_server.wire.fields import struct

from tests.tasks.firers import Clock, Firer, firer
from tests.tasks.kinds import Steered
from tests.waiting import until

if TYPE_CHECKING:
    from uuid import UUID

    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
EVERY_MINUTE = Schedule(cron="* * * * *")


@pytest_asyncio.fixture
async def clock() -> Clock:
    return Clock(NOON)


@pytest_asyncio.fixture
async def server(database_url: str, clock: Clock) -> AsyncIterator[Firer]:
    async with firer(database_url, clock) as one:
        yield one


async def submit_at_once(server: Firer, tenant: Tenant, task_id: str, ids: list[UUID]) -> None:
    """Executions of a task that are as old as each other, as those of one backfill are."""
    task = await server.get(tenant, task_id)
    async with server.database.system() as tx:
        works = [new_work(tenant, Spec("steered", {}), item_id, "test", task=task) for item_id in ids]
        await server.services.queue.submit_many(tx, works)
        rows = [NewRow(item_id, {}, {}, {}, (), "steered", "up", task.uid) for item_id in ids]
        await execution_store.insert(tx, tenant.organization_id, tenant.user_id, Trigger.BACKFILL, rows)


async def test_of_executions_that_were_submitted_at_once_the_last_is_the_newest(server: Firer, tenant: Tenant) -> None:
    for task_id in ("up", "down"):
        await server.create(tenant, task_id, EVERY_MINUTE)
    ids = [new_id() for _ in range(20)]
    await submit_at_once(server, tenant, "up", [ids[-1], *ids[:-1]])
    async with server.database.system() as tx:
        await dependency_store.insert(tx, tenant.organization_id, "down", "up", FailurePolicy.BLOCK)
        await tx.execute("UPDATE work_items SET state = 'DEAD', finished_at = now() WHERE item_id = $1", ids[-1])
        (edge,) = await dependency_store.upstream(tx, tenant.organization_id, ["down"])
    assert (await server.get(tenant, "up")).last_execution_id == ids[-1]
    assert edge.state is DependencyState.FAILED


async def ended(tasks: TaskServiceAsyncStub, name: str) -> pb.Execution:
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


async def create(tasks: TaskServiceAsyncStub, task_id: str, **fields: Any) -> pb.Task:
    task = pb.Task(kind="steered", payload=struct(fields.pop("payload", {})), **fields)
    return await tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, task=task))


async def test_a_task_has_no_execution_of_another_that_had_its_name(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, "up")
    execution = await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/up"))
    await ended(tasks, execution.name)
    await tasks.DeleteTask(pb.DeleteTaskRequest(name="tasks/up"))
    assert (await create(tasks, "up")).last_execution == ""
    await create(tasks, "down")
    dependency = await tasks.AddDependency(pb.AddDependencyRequest(task="tasks/down", depends_on="tasks/up"))
    assert dependency.state == pb.DEPENDENCY_STATE_PENDING
    listed = await tasks.ListExecutions(pb.ListExecutionsRequest(filter='task = "tasks/up"'))
    assert [one.name for one in listed.executions] == [execution.name], "a filter by the name finds what had it"


async def test_a_task_is_not_paused_by_what_failed_of_another_that_had_its_name(
    tasks: TaskServiceAsyncStub, steered: Steered, database: Database
) -> None:
    careful = pb.Schedule(cron="* * * * *", pause_on_failure=True)
    await create(tasks, "a", payload={"gate": "g", "fail": 9, "retryable": False}, schedule=careful)
    async with database.system() as tx:
        await tx.execute("UPDATE tasks SET settled_until = now() - interval '90 s', next_fire_at = now()")

    async def begun() -> list[UUID]:
        return steered.begun

    (execution_id,) = await until(begun)
    await tasks.DeleteTask(pb.DeleteTaskRequest(name="tasks/a"))
    await create(tasks, "a", schedule=pb.Schedule(every=Duration(seconds=86_400), pause_on_failure=True))
    steered.gate("g").set()
    assert (await ended(tasks, f"executions/{execution_id}")).state == pb.EXECUTION_STATE_FAILED
    assert (await tasks.GetTask(pb.GetTaskRequest(name="tasks/a"))).state == pb.TASK_STATE_ACTIVE


async def test_a_schedule_does_not_wait_for_what_another_task_of_its_name_began(
    server: Firer, clock: Clock, tenant: Tenant
) -> None:
    await server.create(tenant, "t", EVERY_MINUTE)
    clock.at += timedelta(minutes=1)
    assert await server.firing.fire_due() == 1
    await server.tasks.delete(system_caller(tenant.organization_id, tenant.user_id, request_id="test"), "t")
    task = await server.create(tenant, "t", EVERY_MINUTE)
    clock.at += timedelta(minutes=1)
    assert await server.firing.fire_due() == 1
    assert await server.fired(task) == [clock.at]
