"""Of an execution there is one report in a format: of its last end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import asyncpg
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import storage_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster_client import Client
from stationmaster_client.errors import NotFound
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer
from tests.tasks.kinds import Steered
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

FORMATS = [storage_pb2.REPORT_FORMAT_JSON, storage_pb2.REPORT_FORMAT_MARKDOWN]
ONCE = pb.ExecutionRetryPolicy(max_attempts=1, initial_delay=Duration(nanos=1_000_000))
OPTIONS = pb.ExecutionOptions(retry=ONCE, report_formats=FORMATS)


async def submit(tasks: TaskServiceAsyncStub, **payload: Any) -> str:
    """An execution that leaves reports."""
    spec = pb.ExecutionSpec(kind="steered", payload=struct(payload), options=OPTIONS)
    return (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))).name


async def attempts_told(station: RunningServer, execution: str) -> list[int] | None:
    """How many failed attempts each JSON report tells of; None while there are fewer reports than formats.

    None, too, where one was replaced between being listed and being read.
    """
    async with Client.connect(station.target, station.admin_key) as client:
        reports = [report async for report in client.reports.list(filter=f'execution = "{execution}"')]
        if len(reports) < len(FORMATS):
            return None
        assert sorted(report.format for report in reports) == FORMATS
        try:
            texts = [await client.reports.read(one.name) for one in reports if one.format == FORMATS[0]]
        except NotFound:
            return None
        return [len(json.loads(text)["attempts"]) for text in texts]


async def retried(tasks: TaskServiceAsyncStub, name: str) -> None:
    """It is queued again, once its end has been followed up."""

    async def again() -> bool:
        answer = await tasks.RetryExecution(pb.RetryExecutionRequest(filter='state = "FAILED"'))
        return list(answer.names) == [name]

    await until(again)


async def test_reports_of_a_retry_replace_those_before_it(
    tasks: TaskServiceAsyncStub, station: RunningServer, administrator_url: str
) -> None:
    name = await submit(tasks, fail=9)

    async def told(attempts: int) -> bool:
        return await attempts_told(station, name) == [attempts]

    await until(lambda: told(1), seconds=60)
    before = (await tasks.GetExecution(pb.GetExecutionRequest(name=name))).reports
    await retried(tasks, name)
    await until(lambda: told(2), seconds=60)
    after = (await tasks.GetExecution(pb.GetExecutionRequest(name=name))).reports
    assert len(after) == len(FORMATS)
    assert not set(before) & set(after)
    connection = await asyncpg.connect(administrator_url)
    deleted = await connection.fetch("SELECT resource FROM audit_events WHERE action = 'report.delete'")
    await connection.close()
    assert {row["resource"] for row in deleted} == set(before)


async def test_whoever_saw_the_new_end_sees_no_report_of_the_old(
    tasks: TaskServiceAsyncStub, station: RunningServer
) -> None:
    name = await submit(tasks, fail=9)

    async def told() -> bool:
        return await attempts_told(station, name) == [1]

    await until(told, seconds=60)
    old = set((await tasks.GetExecution(pb.GetExecutionRequest(name=name))).reports)
    await retried(tasks, name)
    ends = 0
    async for answer in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        ends += sum(event.execution_state_changed.state == "FAILED" for event in answer.events)
    assert ends == 2
    assert not old & set((await tasks.GetExecution(pb.GetExecutionRequest(name=name))).reports)


async def test_no_report_is_made_of_an_execution_that_runs_again(
    tasks: TaskServiceAsyncStub, steered: Steered, station: RunningServer, administrator_url: str
) -> None:
    """One that was ordered at its last end, and comes late."""
    steered.gate("run").set()
    name = await submit(tasks, fail=9, gate="run")

    async def told() -> bool:
        return await attempts_told(station, name) == [1]

    await until(told, seconds=60)
    steered.gate("run").clear()
    await retried(tasks, name)
    connection = await asyncpg.connect(administrator_url)
    late = await connection.fetchval(_ORDERED_AGAIN)

    async def dealt_with() -> bool:
        return bool(await connection.fetchval("SELECT state <> 'QUEUED' AND finished_at IS NOT NULL"
                                              " FROM work_items WHERE item_id = $1", late))  # fmt: skip

    await until(dealt_with, seconds=60)
    state = await connection.fetchval("SELECT state FROM work_items WHERE item_id = $1", late)
    count = await connection.fetchval("SELECT count(*) FROM reports")
    await connection.close()
    assert (state, count) == ("SUCCEEDED", len(FORMATS))


async def test_reports_go_with_the_execution_that_is_replaced(
    tasks: TaskServiceAsyncStub, station: RunningServer
) -> None:
    spec = pb.ExecutionSpec(kind="steered", options=OPTIONS)
    wanted = pb.SubmitExecutionRequest(execution=spec, execution_id="01936f5e-0000-7000-8000-000000000001")
    name = (await tasks.SubmitExecution(wanted)).name

    async def told() -> bool:
        return await attempts_told(station, name) == [1]

    await until(told, seconds=60)
    wanted.on_conflict = pb.ID_CONFLICT_POLICY_TERMINATE_EXISTING
    wanted.execution.options.ClearField("report_formats")
    await tasks.SubmitExecution(wanted)
    assert not (await tasks.GetExecution(pb.GetExecutionRequest(name=name))).reports


_ORDERED_AGAIN = """
INSERT INTO work_items (organization_id, user_id, item_id, kind, subject_id, state, priority, payload, retry, run_at)
SELECT organization_id, user_id, gen_random_uuid(), kind, subject_id, 'QUEUED', priority, payload, retry, now()
FROM work_items WHERE kind = 'task_report' RETURNING item_id
"""
