"""Reports of long executions are true to their end, and those of a busy server are made when it is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import storage_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster_client import Client
from stationmaster_server.errors import QuotaViolation, Reason, ResourceExhausted
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

OPTIONS = pb.ExecutionOptions(
    report_formats=[storage_pb2.REPORT_FORMAT_JSON],
    retry=pb.ExecutionRetryPolicy(initial_delay=Duration(nanos=1_000_000)),
)
BUSY_TIMES = 5
"""More often than a work item has attempts."""


async def report_of(
    tasks: TaskServiceAsyncStub, station: RunningServer, payload: dict[str, Any], kind: str = "steered"
) -> dict[str, Any]:
    """The JSON report of an execution, once it is made."""
    spec = pb.ExecutionSpec(kind=kind, payload=struct(payload), options=OPTIONS)
    name = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))).name

    async def made() -> list[str]:
        return list((await tasks.GetExecution(pb.GetExecutionRequest(name=name))).reports)

    (report,) = await until(made, seconds=60)
    async with Client.connect(station.target, station.admin_key) as client:
        found: dict[str, Any] = json.loads(await client.reports.read(report))
    return found


async def test_a_busy_server_makes_the_report_later(
    tasks: TaskServiceAsyncStub, station: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pools.cpu
    refused: list[Any] = []

    async def busy(self: Pools, function: Any, *args: Any, timeout: timedelta) -> Any:
        if "reports" in function.__module__ and len(refused) < BUSY_TIMES:
            refused.append(function)
            violation = QuotaViolation("server", "all processes are busy")
            raise ResourceExhausted(Reason.SERVER_OVERLOADED, "busy", violation, retry_after=timedelta(milliseconds=10))
        return await real(self, function, *args, timeout=timeout)

    monkeypatch.setattr(Pools, "cpu", busy)
    report = await report_of(tasks, station, {})
    assert report["state"] == "SUCCEEDED"
    assert len(refused) == BUSY_TIMES


async def test_a_report_of_a_long_stream_tells_of_its_end(tasks: TaskServiceAsyncStub, station: RunningServer) -> None:
    report = await report_of(tasks, station, {"lines": 6_000})
    assert report["attempts"][-1]["state"] == "SUCCEEDED"
    assert report["progress"]["messages"][-1]["text"] == "line 6000"
    assert any("log lines are left out" in note for note in report["notes"])


async def test_a_report_and_its_execution_tell_the_same_times_from_the_first_start_to_the_end(
    tasks: TaskServiceAsyncStub, station: RunningServer
) -> None:
    report = await report_of(tasks, station, {"fail": 2})
    execution = await tasks.GetExecution(pb.GetExecutionRequest(name=report["execution"]))
    first, *_, last = report["attempts"]
    assert datetime.fromisoformat(report["started_at"]) == execution.start_time.ToDatetime(UTC)
    assert datetime.fromisoformat(report["finished_at"]) == execution.end_time.ToDatetime(UTC)
    assert report["started_at"] <= first["started_at"] < first["finished_at"] < last["started_at"]
    assert last["finished_at"] == report["finished_at"]


def table_of(report: dict[str, Any], title: str) -> list[list[str]]:
    """The rows of a section."""
    (section,) = (section for section in report["sections"] if section["title"] == title)
    rows: list[list[str]] = section["table"]["rows"]
    return rows


async def test_a_report_says_what_was_to_be_done_for_whom_and_no_secret(
    tasks: TaskServiceAsyncStub, station: RunningServer
) -> None:
    secret = "Bearer of-nobody-else"
    payload = {"url": "http://127.0.0.1:9/hook", "body": {"order": 17}, "headers": {"authorization": secret}}
    report = await report_of(tasks, station, payload, "webhook")
    rows = dict(table_of(report, "Payload"))
    assert rows["url"] == payload["url"]
    assert rows["body"] == '{"order": 17}'
    assert rows["headers"] == '{"authorization": "********"}'
    assert "of-nobody-else" not in json.dumps(report)
    async with Client.connect(station.target, station.admin_key) as client:
        me = (await client.whoami()).user
    assert (report["owner"], report["owner_name"]) == (me.name, me.display_name)


async def test_a_report_shows_the_variables_of_its_task(tasks: TaskServiceAsyncStub, station: RunningServer) -> None:
    async with Client.connect(station.target, station.admin_key) as client:
        city = pb.VariableDeclaration(name="city")
        task = pb.Task(kind="steered", payload=struct({"text": "{{ city }}"}), variables=[city], options=OPTIONS)
        await client.tasks.create("hello", task)
        execution = await client.tasks.execute("hello", {"city": "Basel"})

        async def made() -> list[str]:
            return list((await client.executions.get(execution.name)).reports)

        (name,) = await until(made, seconds=60)
        report = json.loads(await client.reports.read(name))
    assert table_of(report, "Payload") == [["text", "Basel"]]
    assert table_of(report, "Variables") == [["city", "Basel"]]


async def test_the_report_of_an_export_lists_its_files(tasks: TaskServiceAsyncStub, station: RunningServer) -> None:
    report = await report_of(tasks, station, {"what": ["tasks", "executions"], "format": "csv"}, "export")
    rows = table_of(report, "Files")
    assert [(Path(row[0]).name, row[1], row[4]) for row in rows] == [
        ("tasks.csv", "tasks", "yes"),
        ("executions.csv", "executions", "yes"),
    ]
    assert "Result" not in [section["title"] for section in report["sections"]]


async def test_the_report_of_a_processing_lists_its_documents(
    tasks: TaskServiceAsyncStub, station: RunningServer
) -> None:
    payload = {"text": "# Fruit\n\nOranges are round.", "source": "fruit", "title": "About fruit"}
    report = await report_of(tasks, station, payload, "process")
    ((source, title, pieces, *_, name),) = table_of(report, "Documents")
    assert (source, title, pieces) == ("fruit", "About fruit", "1")
    assert name.startswith("documents/")
