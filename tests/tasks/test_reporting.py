"""Reports of long executions are true to their end, and those of a busy server are made when it is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
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


async def report_of(tasks: TaskServiceAsyncStub, station: RunningServer, payload: dict[str, Any]) -> dict[str, Any]:
    """The JSON report of an execution, once it is made."""
    spec = pb.ExecutionSpec(kind="steered", payload=struct(payload), options=OPTIONS)
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
