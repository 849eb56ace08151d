"""Prompts that wait for their turns take no worker from anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer, running, server_settings
from tests.tasks.aged import ran
from tests.tasks.kinds import Steered
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

SLOTS = 4


@pytest_asyncio.fixture
async def station(database_url: str, tmp_path: Path, steered: Steered) -> AsyncIterator[RunningServer]:
    """A whole server with few slots."""
    async with running(server_settings(tmp_path / "data", database_url, work={"slots": SLOTS})) as server:
        yield server


@pytest_asyncio.fixture
async def tasks(station: RunningServer) -> AsyncIterator[TaskServiceAsyncStub]:
    """TaskService, as the administrator calls it."""
    async with station.channel() as channel:
        yield TaskServiceStub(channel)


async def submit(tasks: TaskServiceAsyncStub, number: int, prompt: str) -> None:
    """Prompts to the demo model."""
    payload = struct({"model": "demo", "prompt": prompt})
    specs = [pb.ExecutionSpec(kind="prompt", payload=payload) for _ in range(number)]
    await tasks.BatchSubmitExecutions(pb.BatchSubmitExecutionsRequest(executions=specs))


async def with_sessions(tasks: TaskServiceAsyncStub, state: str) -> int:
    """How many executions are in a state and have a session."""
    page = await tasks.ListExecutions(pb.ListExecutionsRequest(filter=f'state = "{state}"', page_size=100))
    return sum(bool(execution.session) for execution in page.executions)


@pytest.mark.timeout(180)
async def test_more_prompts_than_slots_wait_at_once_and_all_end(tasks: TaskServiceAsyncStub) -> None:
    count = 2 * SLOTS
    await submit(tasks, count, "/slow 20\n/say 500")

    async def all_wait() -> bool:
        return await with_sessions(tasks, "RUNNING") == count

    await until(all_wait)

    async def all_ended() -> bool:
        return await with_sessions(tasks, "SUCCEEDED") == count

    await until(all_ended, seconds=120)


async def test_prompts_that_wait_leave_their_slots_to_others(tasks: TaskServiceAsyncStub) -> None:
    """With as many turns as leave one slot free."""
    await submit(tasks, SLOTS - 1, "/slow 20\n/say 3000")

    async def all_wait() -> bool:
        return await with_sessions(tasks, "RUNNING") == SLOTS - 1

    await until(all_wait)
    other = await ran(tasks, "steered", text="hello")
    assert other.state == pb.EXECUTION_STATE_SUCCEEDED
    assert await with_sessions(tasks, "RUNNING") == SLOTS - 1
