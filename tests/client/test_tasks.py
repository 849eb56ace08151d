"""The client's parts for tasks and executions, against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict
from stationmaster.v1 import event_pb2, task_pb2
from stationmaster_client import Client, SyncClient, errors
from stationmaster_client.sources import ExecutionSource
from stationmaster_client.values import to_struct

from tests.client.relay import relaying
from tests.client.restarting import restarting_server
from tests.fixtures.server import RunningServer, StartServer
from tests.tasks.kinds import Steered

ONCE = task_pb2.ExecutionOptions(retry=task_pb2.ExecutionRetryPolicy(max_attempts=1))


@pytest_asyncio.fixture
async def client(station: RunningServer) -> AsyncIterator[Client]:
    async with Client.connect(station.target, station.admin_key) as made:
        yield made


def steered_task(payload: dict[str, Any] | None = None, **fields: Any) -> task_pb2.Task:
    return task_pb2.Task(kind="steered", payload=to_struct(payload or {}), **fields)


async def test_task_is_created_found_changed_paused_and_deleted(client: Client) -> None:
    checked = await client.tasks.create("hello", steered_task(), validate_only=True)
    assert checked.name == "tasks/hello"
    made = await client.tasks.create("hello", steered_task(display_name="Say hello"))
    assert await client.tasks.get("hello") == made
    assert [task.name async for task in client.tasks.list(filter='kind = "steered"')] == ["tasks/hello"]
    assert [hit.task.name async for hit in client.tasks.search("say")] == ["tasks/hello"]
    made.display_name = "Changed"
    changed = await client.tasks.update(made, ["display_name"])
    assert changed.display_name == "Changed"
    with pytest.raises(errors.Aborted):
        await client.tasks.update(made, ["display_name"])
    paused = await client.tasks.pause("hello", "for now")
    assert (paused.state, paused.state_reason) == (task_pb2.TASK_STATE_PAUSED, "for now")
    assert (await client.tasks.resume("hello")).state == task_pb2.TASK_STATE_ACTIVE
    await client.tasks.delete("hello")
    with pytest.raises(errors.NotFound):
        await client.tasks.get("hello")


async def test_dependencies_are_added_listed_checked_and_removed(client: Client) -> None:
    for task_id in ("a", "b", "c"):
        await client.tasks.create(task_id, steered_task())
    await client.tasks.depend("b", "a")
    skip = task_pb2.DEPENDENCY_FAILURE_POLICY_SKIP
    assert (await client.tasks.depend("c", "b", on_failure=skip)).on_failure == skip
    with pytest.raises(errors.FailedPrecondition) as cycle:
        await client.tasks.depend("a", "c")
    assert cycle.value.reason == "DEPENDENCY_CYCLE"
    assert list((await client.tasks.check("a", "c")).cycle) == ["tasks/a", "tasks/c", "tasks/b", "tasks/a"]
    assert not (await client.tasks.check("b")).ready
    up = [each.depends_on async for each in client.tasks.dependencies("c", max_depth=50, page_size=1)]
    assert up == ["tasks/b", "tasks/a"]
    assert [each.task async for each in client.tasks.dependencies("a", downstream=True)] == ["tasks/b"]
    await client.tasks.undepend("b", "a")
    assert (await client.tasks.check("b")).ready


async def test_previews_of_what_is_stored_and_of_what_is_not(client: Client) -> None:
    variables = [task_pb2.VariableDeclaration(name="who", required=True)]
    greet = steered_task({"text": "Hello {{ who }}"}, variables=variables)
    schedule = task_pb2.Schedule(cron="0 7 * * *", time_zone="Europe/Berlin")
    await client.tasks.create("daily", steered_task(schedule=schedule))
    await client.tasks.create("greet", greet)
    for task in ("greet", greet):
        rendered = await client.tasks.render(task, {"who": "Ada"})
        assert MessageToDict(rendered.payload)["text"] == "Hello Ada"
    after = datetime(2026, 1, 1, tzinfo=UTC)
    for wanted in ("daily", schedule):
        times = (await client.tasks.preview(wanted, count=2, after=after)).times
        assert [time.ToJsonString() for time in times] == ["2026-01-01T06:00:00Z", "2026-01-02T06:00:00Z"]


async def test_execution_is_waited_for_and_returned_as_it_ended(client: Client, steered: Steered) -> None:
    variables = [task_pb2.VariableDeclaration(name="who", required=True)]
    await client.tasks.create("greet", steered_task({"text": "Hello {{ who }}", "gate": "open"}, variables=variables))
    execution = await client.tasks.execute("greet", {"who": "Ada"}, idempotency_key="once", labels={"a": "b"})
    assert (await client.tasks.execute("greet", {"who": "Ada"}, idempotency_key="once")).name == execution.name
    waiting = asyncio.create_task(client.executions.wait(execution.name))
    steered.gate("open").set()
    ended = await waiting
    assert ended.state == task_pb2.EXECUTION_STATE_SUCCEEDED
    assert MessageToDict(ended.result) == {"text": "Hello Ada", "attempt": 1.0}
    failed = await client.executions.submit("steered", {"fail": 1}, options=ONCE)
    assert (await client.executions.wait(failed.name)).state == task_pb2.EXECUTION_STATE_FAILED


async def test_backfill_executes_the_past(client: Client) -> None:
    await client.tasks.create("hourly", steered_task(schedule=task_pb2.Schedule(cron="0 * * * *")))
    start = datetime(2026, 3, 1, tzinfo=UTC)
    would = await client.tasks.backfill("hourly", start, start + timedelta(hours=3), validate_only=True)
    assert (len(would.times), list(would.names)) == (3, [])
    done = await client.tasks.backfill("hourly", start, start + timedelta(hours=3), max_running=3)
    assert [(await client.executions.wait(name)).trigger for name in done.names] == [
        task_pb2.EXECUTION_TRIGGER_BACKFILL
    ] * 3


async def test_executions_are_submitted_listed_cancelled_retried_and_counted(client: Client) -> None:
    specs = [task_pb2.ExecutionSpec(kind="steered", payload=to_struct({"fail": 1}), options=ONCE) for _ in range(3)]
    names = await client.executions.submit_many(specs)
    for name in names:
        await client.executions.wait(name)
    failed = [execution.name async for execution in client.executions.list(filter='state = "FAILED"', page_size=2)]
    assert sorted(failed) == sorted(names)
    assert await client.executions.retry(names[0]) == [names[0]]
    assert set(await client.executions.retry(filter='kind = "steered"')) >= set(names[1:])
    late = await client.executions.submit("steered", {}, run_time=datetime.now(UTC) + timedelta(hours=1))
    cancelled = await client.executions.cancel(late.name.removeprefix("executions/"), "not needed")
    assert cancelled.state == task_pb2.EXECUTION_STATE_CANCELLED
    (stats,) = [one for one in (await client.executions.stats()).kinds if one.kind == "steered"]
    assert (stats.kind, stats.cancelled_last_hour_count) == ("steered", 1)


async def test_taken_id_gives_the_execution_that_has_it(client: Client) -> None:
    taken = "01936f5e-0000-7000-8000-000000000001"
    first = await client.executions.submit("steered", {"text": "first"}, execution_id=taken)
    with pytest.raises(errors.AlreadyExists):
        await client.executions.submit("steered", {}, execution_id=taken)
    use = task_pb2.ID_CONFLICT_POLICY_USE_EXISTING
    again = await client.executions.submit("steered", {}, execution_id=taken, on_conflict=use)
    assert again.name == first.name


async def test_watch_through_cut_connections_gives_each_event_once(client: Client, station: RunningServer) -> None:
    execution = await client.executions.submit("steered", {"text": "x" * 4000, "fail": 2})
    whole = [event async for event in client.executions.watch(execution.name)]
    async with (
        relaying(station.target, cut_after=6_000) as relay,
        Client.connect(relay.target, station.admin_key, insecure=True) as other,
        other.executions.watch(execution.name) as events,
    ):
        seen = [event async for event in events]
    assert relay.cuts > 0
    assert seen == whole
    rest = [event async for event in client.executions.watch(execution.name, whole[2].sequence)]
    assert rest == whole[3:]


async def test_wait_survives_a_server_that_is_killed(server_process: StartServer, database_url: str) -> None:
    async with restarting_server(server_process, database_url) as server, server.client() as client:
        payload = {"model": "demo", "prompt": "/slow 20\n/say 100"}
        execution = await client.executions.submit("prompt", payload)
        waiting = asyncio.create_task(client.executions.wait(execution.name))
        async with client.executions.watch(execution.name) as events:
            async for event in events:
                if event.HasField("message_added"):
                    break
        await server.kill_and_restart()
        ended = await waiting
        assert ended.state == task_pb2.EXECUTION_STATE_SUCCEEDED
        assert len(MessageToDict(ended.result)["text"].split()) == 100


def test_hole_is_read_again_and_then_told() -> None:
    source = ExecutionSource("executions/1", 0, lambda request: pytest.fail("nothing is opened"))

    def batch(*sequences: int) -> task_pb2.WatchExecutionResponse:
        return task_pb2.WatchExecutionResponse(events=[event_pb2.Event(sequence=one) for one in sequences])

    assert [event.sequence for event in source.take(batch(1, 2, 5))] == [1, 2]
    assert source.must_reopen()
    assert [event.sequence for event in source.take(batch(2, 3, 4, 5))] == [3, 4, 5]
    assert not source.must_reopen()
    source.take(batch(8))
    with pytest.raises(errors.DataLoss, match="6 to 7 of executions/1"):
        source.take(batch(8))


async def test_the_same_through_blocking_calls(station: RunningServer) -> None:
    def use() -> None:
        with SyncClient.connect(station.target, station.admin_key) as client:
            client.tasks.create("hello", steered_task({"text": "hello"}))
            execution = client.tasks.execute("hello")
            assert client.executions.wait(execution.name).state == task_pb2.EXECUTION_STATE_SUCCEEDED
            with client.executions.watch(execution.name) as events:
                assert next(events).execution_state_changed.state == "QUEUED"
            assert [task.name for task in client.tasks.list()] == ["tasks/hello"]

    await asyncio.to_thread(use)
