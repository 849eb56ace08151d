"""MaintenanceService: seen, changed, paused and watched by operators; operations are done once, also by who is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import identity_pb2, identity_pb2_grpc, task_pb2
from stationmaster.v1 import maintenance_pb2 as pb
from stationmaster.v1.maintenance_pb2_grpc import MaintenanceServiceStub
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance import store
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer, StartServer
from tests.promises.refusal import refused
from tests.rpc.served import reason_of
from tests.waiting import until

NAME = "backgroundServices/crawl-cleanup"
THE_SET = {
    "task-embedding",
    "dependency-cycles",
    "index-optimization",
    "session-cleanup",
    "credential-expiry",
    "key-rewrap",
    "schedule-firing",
    "model-client-eviction",
    "report-cleanup",
    "archive-cleanup",
    "event-compaction",
}
ENGINES = {"work-claiming", "work-leases", "work-reaping", "event-writing", "audit-sequencing", "audit-signing"} | {
    "resource-monitoring"
}


@pytest_asyncio.fixture
async def maintenance(server: RunningServer) -> AsyncIterator[Any]:
    """The operator's stub."""
    async with server.channel() as channel:
        yield MaintenanceServiceStub(channel)


async def get(maintenance: Any, name: str = NAME) -> pb.BackgroundService:
    answer: pb.BackgroundService = await maintenance.GetBackgroundService(pb.GetBackgroundServiceRequest(name=name))
    return answer


async def reason(call: Any) -> str:
    """Why a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return reason_of(raised.value)


async def ended(maintenance: Any, name: str) -> pb.Operation:
    """An operation, once it has ended."""

    async def look() -> pb.Operation | None:
        operation: pb.Operation = await maintenance.GetOperation(pb.GetOperationRequest(name=name))
        return operation if operation.HasField("finish_time") else None

    operation = await until(look, seconds=30)
    assert operation is not None
    return operation


async def test_the_set_is_listed_with_what_it_does_and_did(maintenance: Any) -> None:
    found: dict[str, pb.BackgroundService] = {}
    request = pb.ListBackgroundServicesRequest(page_size=7)
    while True:
        page = await maintenance.ListBackgroundServices(request)
        found |= {one.name.removeprefix("backgroundServices/"): one for one in page.background_services}
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert found.keys() >= THE_SET | ENGINES
    assert list(found) == sorted(found)
    assert all(one.description for one in found.values())
    guide = (Path(__file__).parents[2] / "docs/guides/background-services.md").read_text()
    assert [name for name in found if f"`{name}`" not in guide] == []
    # Two engines go round when there is something to do.
    by_the_clock = found.keys() - {"work-leases", "event-writing"}
    assert all(found[name].interval.ToTimedelta() > timedelta() for name in by_the_clock)

    async def fired() -> bool:
        firing = await get(maintenance, "backgroundServices/schedule-firing")
        return firing.metrics.completed > 0 and firing.servers[0].state == pb.BACKGROUND_SERVICE_STATE_IDLE

    await until(fired)
    only = pb.ListBackgroundServicesRequest(filter="scope = EVERY_SERVER", order_by="service desc")
    names = [one.name for one in (await maintenance.ListBackgroundServices(only)).background_services]
    assert names == sorted(names, reverse=True)
    assert NAME not in names


async def test_settings_are_changed_by_etag_and_a_wrong_one_is_refused_by_its_place(maintenance: Any) -> None:
    name = "backgroundServices/index-optimization"
    before = await get(maintenance, name)
    assert before.etag == "default"
    assert before.settings["change_threshold"] == 50_000
    assert "default 50000" in before.settings_help["change_threshold"]
    service = pb.BackgroundService(name=name, interval=Duration(seconds=90), etag=before.etag)
    service.settings.update({"change_threshold": 1000})
    changed = await maintenance.UpdateBackgroundService(pb.UpdateBackgroundServiceRequest(background_service=service))
    assert (changed.interval.seconds, changed.settings["change_threshold"]) == (90, 1000)
    again = pb.UpdateBackgroundServiceRequest(background_service=service)
    assert await reason(maintenance.UpdateBackgroundService(again)) == "ETAG_MISMATCH"
    again.background_service.etag = ""
    again.background_service.settings.update({"change_threshold": 1, "colour": "red"})
    refusal = await refused(maintenance.UpdateBackgroundService(again))
    assert sorted(refusal.fields) == [
        "background_service.settings.change_threshold",
        "background_service.settings.colour",
    ]
    back = pb.BackgroundService(name=name)
    mask = FieldMask(paths=["interval", "settings"])
    default = await maintenance.UpdateBackgroundService(
        pb.UpdateBackgroundServiceRequest(background_service=back, update_mask=mask)
    )
    assert (default.interval, default.settings["change_threshold"]) == (before.interval, 50_000)


async def test_what_is_named_and_not_set_is_by_default_again(maintenance: Any) -> None:
    before = await get(maintenance)
    fields = ["max_failures", "alert_errors_per_hour", "alert_memory_growth_bytes", "alert_handle_growth"]
    zero = pb.BackgroundService(name=NAME)
    for field in fields:
        setattr(zero, field, 0)
    request = pb.UpdateBackgroundServiceRequest(background_service=zero, update_mask=FieldMask(paths=fields))
    changed = await maintenance.UpdateBackgroundService(request)
    assert [getattr(changed, field) for field in fields] == [0, 0, 0, 0]
    request.background_service.CopyFrom(pb.BackgroundService(name=NAME))
    back = await maintenance.UpdateBackgroundService(request)
    assert [getattr(back, field) for field in fields] == [getattr(before, field) for field in fields]
    assert all(getattr(back, field) for field in fields)


async def test_a_setting_written_back_as_it_was_read_goes_on_following_its_default(
    maintenance: Any, database: Database
) -> None:
    service = await get(maintenance, "backgroundServices/index-optimization")
    assert len(service.settings) > 1
    service.settings.update({"change_threshold": 1000})
    mask = FieldMask(paths=["settings"])
    await maintenance.UpdateBackgroundService(
        pb.UpdateBackgroundServiceRequest(background_service=service, update_mask=mask)
    )
    async with database.system(autocommit=True) as tx:
        stored = (await store.all_settings(tx))["index-optimization"]
    assert stored.own == {"change_threshold": 1000}


async def test_a_paused_service_says_why_and_resumed_it_runs_at_once(maintenance: Any) -> None:
    async def completed(more_than: int) -> bool:
        return (await get(maintenance)).metrics.completed > more_than

    await until(lambda: completed(0))
    paused = await maintenance.PauseBackgroundService(pb.PauseBackgroundServiceRequest(name=NAME, reason="the disk"))
    assert (paused.state, paused.pause_reason) == (pb.BACKGROUND_SERVICE_STATE_PAUSED, "the disk")
    status = await maintenance.GetSystemStatus(pb.GetSystemStatusRequest())
    assert [(alert.subject, "the disk" in alert.text) for alert in status.alerts] == [(NAME, True)]
    count = (await get(maintenance)).metrics.completed
    resumed = await maintenance.ResumeBackgroundService(pb.ResumeBackgroundServiceRequest(name=NAME))
    assert resumed.state in (pb.BACKGROUND_SERVICE_STATE_IDLE, pb.BACKGROUND_SERVICE_STATE_RUNNING)
    await until(lambda: completed(count))


async def test_a_service_that_is_paused_once_more_keeps_its_reason_unless_another_is_given(maintenance: Any) -> None:
    async def pause(reason: str) -> str:
        request = pb.PauseBackgroundServiceRequest(name=NAME, reason=reason)
        answer: pb.BackgroundService = await maintenance.PauseBackgroundService(request)
        return answer.pause_reason

    assert await pause("the disk") == "the disk"
    assert await pause("") == "the disk"
    assert await pause("the network") == "the network"
    await maintenance.ResumeBackgroundService(pb.ResumeBackgroundServiceRequest(name=NAME))
    assert await pause("") == ""


async def test_an_unknown_service_is_refused_with_those_that_there_are(maintenance: Any) -> None:
    name = "backgroundServices/crawl-cleanups"
    for call in (
        maintenance.GetBackgroundService(pb.GetBackgroundServiceRequest(name=name)),
        maintenance.PauseBackgroundService(pb.PauseBackgroundServiceRequest(name=name)),
        maintenance.TriggerOperation(pb.TriggerOperationRequest(service=name, operation="run")),
    ):
        refusal = await refused(call)
        assert refusal.reason == "RESOURCE_NOT_FOUND"
        there_are = refusal.message.partition("there are: ")[2].split(", ")
        assert {"crawl-cleanup", "audit-sequencing"} <= set(there_are)
        assert there_are == sorted(there_are)


async def test_an_engine_is_seen_and_neither_held_nor_set_nor_triggered(maintenance: Any) -> None:
    name = "backgroundServices/audit-sequencing"

    async def beats() -> pb.BackgroundService | None:
        found = await get(maintenance, name)
        return found if found.metrics.completed and found.servers[0].state == pb.BACKGROUND_SERVICE_STATE_IDLE else None

    engine = await until(beats)
    assert engine is not None
    assert (engine.scope, list(engine.operations)) == (pb.BACKGROUND_SERVICE_SCOPE_ENGINE, [])
    update = pb.UpdateBackgroundServiceRequest(background_service=pb.BackgroundService(name=name, enabled=False))
    update.update_mask.paths.append("enabled")
    for call in (
        maintenance.PauseBackgroundService(pb.PauseBackgroundServiceRequest(name=name)),
        maintenance.ResumeBackgroundService(pb.ResumeBackgroundServiceRequest(name=name)),
        maintenance.UpdateBackgroundService(update),
        maintenance.TriggerOperation(pb.TriggerOperationRequest(service=name, operation="run")),
    ):
        assert await reason(call) == "SERVICE_IS_ENGINE"
    assert (await get(maintenance, name)).state == pb.BACKGROUND_SERVICE_STATE_IDLE


async def test_a_watch_gives_all_of_them_and_then_what_changes(maintenance: Any) -> None:
    async with asyncio.timeout(20):
        watch = maintenance.WatchBackgroundServices(pb.WatchBackgroundServicesRequest())
        first = await watch.read()
        assert {one.name.removeprefix("backgroundServices/") for one in first.background_services} >= THE_SET
        await maintenance.PauseBackgroundService(pb.PauseBackgroundServiceRequest(name=NAME))
        while True:
            changed = {one.name: one.state for one in (await watch.read()).background_services}
            if changed.get(NAME) == pb.BACKGROUND_SERVICE_STATE_PAUSED:
                break
        watch.cancel()


async def test_the_status_has_servers_sessions_work_and_the_database(maintenance: Any) -> None:
    async with asyncio.timeout(20):
        watch = maintenance.WatchSystemStatus(pb.WatchSystemStatusRequest(interval=Duration(seconds=1)))
        while True:
            status = (await watch.read()).status
            if (
                status.servers and "memory_resident_bytes" in status.servers[0].resources
            ):  # a server says every two seconds how it is
                break
        watch.cancel()
    (server,) = status.servers
    assert server.version
    assert server.resources["memory_resident_bytes"] > 0
    assert status.database_bytes > 1_000_000
    assert status.database_connections > 0
    assert sum(status.background_services.values()) >= len(THE_SET)


async def test_who_is_no_operator_sees_nothing_and_has_only_its_own_done(
    server: RunningServer, maintenance: Any
) -> None:
    async with server.channel() as channel:
        identity = identity_pb2_grpc.IdentityServiceStub(channel)
        user = identity_pb2.User(display_name="Owner", role=identity_pb2.ROLE_OWNER)
        made = await identity.CreateUser(identity_pb2.CreateUserRequest(user=user))
        key = identity_pb2.ApiKey(user=made.name)
        secret = (await identity.CreateApiKey(identity_pb2.CreateApiKeyRequest(api_key=key))).secret
    async with server.channel(secret) as channel:
        theirs = MaintenanceServiceStub(channel)
        for call in (
            theirs.ListBackgroundServices(pb.ListBackgroundServicesRequest()),
            theirs.GetBackgroundService(pb.GetBackgroundServiceRequest(name=NAME)),
            theirs.PauseBackgroundService(pb.PauseBackgroundServiceRequest(name=NAME)),
            theirs.GetSystemStatus(pb.GetSystemStatusRequest()),
            theirs.TriggerOperation(pb.TriggerOperationRequest(service=NAME, operation="run")),
        ):
            assert await reason(call) == "ROLE_INSUFFICIENT"
        audit = pb.TriggerOperationRequest(service="backgroundServices/dependency-cycles", operation="audit")
        operation = await ended(theirs, (await theirs.TriggerOperation(audit)).name)
    assert operation.state == pb.OPERATION_STATE_SUCCEEDED
    assert operation.result["count"] == 0


async def test_operations_say_what_came_of_them_or_why_nothing_did(server: RunningServer, maintenance: Any) -> None:
    async with server.channel() as channel:
        tasks = TaskServiceStub(channel)
        spec = task_pb2.Task(kind="prompt", display_name="Water the plants")
        spec.payload.update({"model": "demo", "prompt": "Hello"})
        await tasks.CreateTask(task_pb2.CreateTaskRequest(task_id="water", task=spec))
    request = pb.TriggerOperationRequest(
        service="backgroundServices/task-embedding", operation="embed-task", arguments=struct({"task": "tasks/water"})
    )
    done = await ended(maintenance, (await maintenance.TriggerOperation(request)).name)
    assert (done.state, done.result["task"]) == (pb.OPERATION_STATE_SUCCEEDED, "tasks/water")
    request.arguments.update({"task": "tasks/nothing"})
    failed = await ended(maintenance, (await maintenance.TriggerOperation(request)).name)
    assert (failed.state, failed.attempts) == (pb.OPERATION_STATE_FAILED, 1)
    assert "tasks/nothing" in failed.error
    request.arguments.update({"colour": "red"})
    assert (await refused(maintenance.TriggerOperation(request))).fields == ["arguments.colour"]
    request.operation = "nothing"
    assert "it has run, embed-task" in (await refused(maintenance.TriggerOperation(request))).message
    optimize = pb.TriggerOperationRequest(service="backgroundServices/index-optimization", operation="optimize")
    optimized = await ended(maintenance, (await maintenance.TriggerOperation(optimize)).name)
    assert optimized.state == pb.OPERATION_STATE_SUCCEEDED, optimized.error
    assert "public.work_items" in json_format.MessageToDict(optimized.result)["tables"]
    listed = await maintenance.ListOperations(
        pb.ListOperationsRequest(filter='service = "backgroundServices/task-embedding" AND state = FAILED')
    )
    assert [one.name for one in listed.operations] == [failed.name]


async def test_a_cycle_that_is_in_the_database_is_found(
    server: RunningServer, maintenance: Any, administrator_url: str
) -> None:
    async with server.channel() as channel:
        tasks = TaskServiceStub(channel)
        for task_id in ("a", "b", "c", "d"):
            spec = task_pb2.Task(kind="prompt")
            spec.payload.update({"model": "demo", "prompt": "Hello"})
            await tasks.CreateTask(task_pb2.CreateTaskRequest(task_id=task_id, task=spec))
        for one, other in (("a", "b"), ("b", "c"), ("d", "a")):
            await tasks.AddDependency(task_pb2.AddDependencyRequest(task=f"tasks/{one}", depends_on=f"tasks/{other}"))
    connection = await asyncpg.connect(administrator_url)  # no RPC lets anybody do this
    await connection.execute(
        """INSERT INTO task_dependencies (organization_id, task_id, depends_on, on_failure)
           SELECT organization_id, 'c', 'a', on_failure FROM task_dependencies LIMIT 1"""
    )
    await connection.close()
    request = pb.TriggerOperationRequest(service="backgroundServices/dependency-cycles", operation="audit")
    found = await ended(maintenance, (await maintenance.TriggerOperation(request)).name)
    assert json_format.MessageToDict(found.result)["cycles"] == [["tasks/a", "tasks/b", "tasks/c", "tasks/a"]]


async def test_an_operation_of_a_killed_server_is_done_by_the_other(
    server_process: StartServer, database_url: str, data_folder: Path
) -> None:
    environment = {"STATIONMASTER_WORK__LEASE": "2s"}
    first = await server_process(database_url=database_url, environment=environment)
    second = await server_process(database_url=database_url, environment=environment, folder=data_folder.parent / "b")
    async with second.channel(first.admin_key) as channel:
        maintenance = MaintenanceServiceStub(channel)

        async def both() -> bool:
            return len((await maintenance.GetSystemStatus(pb.GetSystemStatusRequest())).servers) == 2

        await until(both)
        requests = [
            pb.TriggerOperationRequest(service="backgroundServices/index-optimization", operation="optimize")
            for _ in range(4)
        ]
        names = [(await maintenance.TriggerOperation(request)).name for request in requests]
        await first.kill()
        operations = [await ended(maintenance, name) for name in names]
        assert {one.state for one in operations} == {pb.OPERATION_STATE_SUCCEEDED}
        runs = (await get(maintenance, "backgroundServices/schedule-firing")).metrics.completed

        async def goes_on() -> bool:
            return (await get(maintenance, "backgroundServices/schedule-firing")).metrics.completed > runs

        await until(goes_on)
