"""What an execution says is in its stream, or its attempt has failed; and however much it says, nothing piles up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
import pytest
import pytest_asyncio
from pydantic import BaseModel
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.events.log import LogSettings
from stationmaster_server.tasks.kinds.base import Done, Job, Payload
from stationmaster_server.wire.fields import struct

from tests.fixtures.outage import Outage
from tests.fixtures.server import running, server_settings
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

LIMIT = 30.0


class OutspokenPayload(Payload):
    """Lines at once, `rounds` times; with `drain`, it waits for them after so many."""

    lines: int = 0
    rounds: int = 1
    drain: int = 0
    stubborn: bool = False
    save: bool = False


class Outspoken:
    """Says much, or says something before, amid and after an outage that it is told of."""

    name: ClassVar[str] = "outspoken"
    payload: ClassVar[type[BaseModel]] = OutspokenPayload

    def __init__(self) -> None:
        self.before, self.amid, self.after = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, job: Job[OutspokenPayload]) -> Done:
        """Run."""
        payload = job.payload
        if payload.lines:
            for _ in range(payload.rounds):
                for number in range(payload.lines):
                    job.log(f"line {number}")
                    if payload.drain and number % payload.drain == 0:
                        await job.drain()
                await job.drain()
            return Done()
        job.log("before")
        self.before.set()
        await self.amid.wait()
        job.log("amid")
        if payload.save:
            await job.save({"said": "amid"})
        await self.after.wait()
        try:
            job.log("after")
        except Exception:
            if not payload.stubborn:
                raise
        return Done()


@pytest.fixture
def outspoken(monkeypatch: pytest.MonkeyPatch) -> Outspoken:
    """The kind, as a plug-in would bring it."""
    kind = Outspoken()
    monkeypatch.setattr("stationmaster_server.app.tasks.installed", lambda taken: [kind])
    return kind


@pytest_asyncio.fixture
async def tasks(
    database_url: str, tmp_path: Path, outspoken: Outspoken, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TaskServiceAsyncStub]:
    """TaskService of a server that gives events up soon when the database is away."""
    impatient = partial(LogSettings, give_up_after=timedelta(milliseconds=300))
    monkeypatch.setattr("stationmaster_server.app.engines.LogSettings", impatient)
    async with running(server_settings(tmp_path / "data", database_url)) as server, server.channel() as channel:
        yield TaskServiceStub(channel)


async def submit(tasks: TaskServiceAsyncStub, **payload: Any) -> str:
    spec = pb.ExecutionSpec(kind="outspoken", payload=struct(payload))
    return (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))).name


async def watched(tasks: TaskServiceAsyncStub, name: str) -> tuple[pb.Execution, list[list[str]]]:
    """The execution at its end, and what each attempt said."""
    said: list[list[str]] = []
    async for answer in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        for event in answer.events:
            if event.execution_state_changed.state == "RUNNING":
                said.append([])
            if event.HasField("execution_log"):
                said[-1].append(event.execution_log.text)
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name)), said


@pytest.mark.parametrize("stubborn", [False, True])
async def test_an_attempt_fails_when_an_outage_swallowed_a_line_though_later_ones_are_written(
    tasks: TaskServiceAsyncStub, outspoken: Outspoken, outage: Outage, caplog: pytest.LogCaptureFixture, stubborn: bool
) -> None:
    name = await submit(tasks, stubborn=stubborn)
    await asyncio.wait_for(outspoken.before.wait(), LIMIT)
    await outage.begin()
    outspoken.amid.set()

    async def given_up() -> bool:
        return "events are given up" in caplog.text

    await until(given_up)
    await outage.end()
    outspoken.after.set()
    execution, said = await watched(tasks, name)
    assert [attempt.reason for attempt in execution.failed_attempts] == ["DATABASE_UNAVAILABLE"]
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED
    assert said[-1] == ["before", "amid", "after"]


async def test_a_flood_of_lines_is_bounded_and_what_was_left_out_is_counted(tasks: TaskServiceAsyncStub) -> None:
    _, (said,) = await watched(tasks, await submit(tasks, lines=100_000, rounds=3))
    each, rest = divmod(len(said), 3)
    assert rest == 0
    kept = each - 1
    assert 100 < kept <= 1024
    lines = [f"line {number}" for number in range(kept)]
    assert said == 3 * [*lines, f"{100_000 - kept} lines were left out: they came faster than they could be written"]


async def test_who_waits_now_and_then_loses_no_line(tasks: TaskServiceAsyncStub) -> None:
    _, (said,) = await watched(tasks, await submit(tasks, lines=5000, drain=100))
    assert said == [f"line {number}" for number in range(5000)]


async def test_a_checkpoint_is_never_ahead_of_what_was_said_before_it(
    tasks: TaskServiceAsyncStub, outspoken: Outspoken, administrator_url: str
) -> None:
    name = await submit(tasks, save=True)
    outspoken.after.set()
    await asyncio.wait_for(outspoken.before.wait(), LIMIT)
    administrator = await asyncpg.connect(administrator_url)
    async with administrator.transaction():  # no event gets into the stream meanwhile
        await administrator.execute("SELECT FROM streams FOR UPDATE")
        outspoken.amid.set()
        for _ in range(200):  # as long as several savings take
            await administrator.fetchval("SELECT pg_sleep(0.002)")
        assert await administrator.fetchval("SELECT checkpoint FROM executions") is None
    _, (said,) = await watched(tasks, name)
    assert said == ["before", "amid", "after"]
    assert await administrator.fetchval("SELECT checkpoint ->> 'said' FROM executions") == "amid"
    await administrator.close()
