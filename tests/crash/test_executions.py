"""Servers killed at random under load: every execution ends once, none is lost, none runs beside itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import storage_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster_server.db.embedded.cluster import SUPERUSER
from stationmaster_server.db.embedded.supervisor import find_postmaster
from stationmaster_server.db.migrate import migrate
from stationmaster_server.wire.fields import struct

from tests.crash import fenced, ledger
from tests.crash.fleet import SIZE, Fleet, install
from tests.db.conditions import eventually
from tests.db.test_embedded import joined
from tests.fixtures.server import StartServer
from tests.waiting import until

LEASE = "4s"
PATIENT = pb.ExecutionRetryPolicy(max_attempts=100, initial_delay=Duration(nanos=1_000_000), factor=1)
FORMATS = [storage_pb2.REPORT_FORMAT_JSON, storage_pb2.REPORT_FORMAT_MARKDOWN]


@pytest_asyncio.fixture
async def observer(administrator_url: str) -> AsyncIterator[Any]:
    """A connection that sees everything, with the side effects' tables made."""
    connection = await asyncpg.connect(administrator_url)
    await connection.execute(fenced.SCHEMA)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def fleet(
    server_process: StartServer, database_url: str, administrator_url: str, data_folder: Path, observer: Any
) -> Fleet:
    """Three servers that know the kind `fenced`."""
    return await start_fleet(server_process, database_url, administrator_url, data_folder)


async def start_fleet(
    server_process: StartServer, database_url: str, administrator_url: str, data_folder: Path, **variables: str
) -> Fleet:
    """Start three servers with the plug-in, whose side effects go to the administrator's connection."""
    environment = install(data_folder.parent / "plugin", Path(fenced.__file__), "Fenced")
    environment |= {"FENCED_URL": administrator_url, "STATIONMASTER_WORK__LEASE": LEASE, **variables}
    folders = [data_folder.parent / f"server-{number}" for number in range(SIZE)]
    fleet = Fleet(server_process, database_url, folders, environment, random.Random(20261126))
    await fleet.start()
    return fleet


def spec(number: int) -> pb.ExecutionSpec:
    """Of a hundred, ten fail at first, four fail for good, and one has reports."""
    payload = {"steps": 1 + number % 3, "fail": 1 if number % 10 == 3 else 0, "broken": number % 25 == 24}
    options = pb.ExecutionOptions(retry=PATIENT, report_formats=FORMATS if number % 100 == 0 else ())
    return pb.ExecutionSpec(kind="fenced", payload=struct(payload), options=options)


async def make_chain(fleet: Fleet, number: int) -> str:
    """Two tasks, the second of which starts when the first has succeeded; the first one's execution."""
    above, below = f"above-{number}", f"below-{number}"
    task = pb.Task(kind="fenced", options=pb.ExecutionOptions(retry=PATIENT))
    for task_id in (above, below):
        await fleet.call("CreateTask", pb.CreateTaskRequest(task_id=task_id, task=task, request_id=str(uuid4())))
    await fleet.call(
        "AddDependency",
        pb.AddDependencyRequest(task=f"tasks/{below}", depends_on=f"tasks/{above}", request_id=str(uuid4())),
    )
    request = pb.ExecuteTaskRequest(name=f"tasks/{above}", request_id=str(uuid4()))
    return str((await fleet.call("ExecuteTask", request)).name)


async def drain(fleet: Fleet, observer: Any, *, total: int, rounds: int, chains: int, gently: bool = False) -> None:
    """Submit in `rounds` batches and kill after each, when a random part of it has ended; then wait for the end."""
    followed, size = [], total // rounds
    for first in range(0, total, size):
        wanted = await ledger.ended(observer) + fleet.chance.randint(1, size // 2)
        request = pb.BatchSubmitExecutionsRequest(
            executions=[spec(number) for number in range(first, first + size)], request_id=str(uuid4())
        )
        names = (await fleet.call("BatchSubmitExecutions", request)).names
        chained = [await make_chain(fleet, number) for number in range(first // size, chains, rounds)]
        followed += [asyncio.create_task(fleet.follow(name)) for name in (names[-1], *chained)]

        async def far_enough(wanted: int = wanted) -> bool:
            return await ledger.ended(observer) >= wanted

        await until(far_enough, seconds=120)
        await fleet.kill_some(gently=gently)

    async def done() -> bool:
        return await ledger.all_is_done(observer)

    await until(done, seconds=600)
    for events in await asyncio.gather(*followed):
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert events[-1].execution_state_changed.state in ledger.FINAL


async def check(observer: Any, states: dict[UUID, str], *, total: int, rounds: int, chains: int) -> None:
    """What is promised of all of them together."""
    broken = sum(number % 25 == 24 for number in range(total))
    assert Counter(states.values()) == {"SUCCEEDED": total - broken + 2 * chains, "FAILED": broken}
    submitted = await observer.fetchval("SELECT count(*) FROM audit_events WHERE action = 'execution.submit_many'")
    assert submitted == rounds, "a batch was submitted twice"
    started = await observer.fetch("SELECT task_id, trigger, count(*) FROM executions GROUP BY 1, 2 ORDER BY 1")
    wanted = {(f"above-{number}", "MANUAL", 1) for number in range(chains)}
    wanted |= {(f"below-{number}", "DEPENDENCY", 1) for number in range(chains)}
    assert {tuple(row) for row in started if row["task_id"]} == wanted
    reports = await observer.fetch("SELECT execution_id, format, count(*) FROM reports GROUP BY 1, 2")
    assert {row["count"] for row in reports} == {1}
    assert len(reports) == len(FORMATS) * len(range(0, total, 100))


@pytest.mark.parametrize(
    ("total", "rounds", "chains"),
    [
        pytest.param(300, 3, 3, id="300", marks=pytest.mark.timeout(300)),
        pytest.param(5000, 20, 20, id="5000", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
async def test_every_execution_ends_once_whatever_is_killed(
    fleet: Fleet, observer: Any, administrator_url: str, total: int, rounds: int, chains: int
) -> None:
    await drain(fleet, observer, total=total, rounds=rounds, chains=chains)
    assert fleet.kills >= rounds
    states = await ledger.check(administrator_url)
    await check(observer, states, total=total, rounds=rounds, chains=chains)


@pytest.mark.timeout(300)
async def test_every_execution_ends_once_though_servers_stop_without_a_grace_and_hand_it_back(
    server_process: StartServer, database_url: str, administrator_url: str, data_folder: Path, observer: Any
) -> None:
    fleet = await start_fleet(
        server_process, database_url, administrator_url, data_folder, STATIONMASTER_SERVER__SHUTDOWN_GRACE="0s"
    )
    await drain(fleet, observer, total=300, rounds=3, chains=3, gently=True)
    assert await ledger.handed_back(observer) > 0
    states = await ledger.check(administrator_url)
    await check(observer, states, total=300, rounds=3, chains=3)


@pytest.mark.timeout(300)
async def test_every_execution_ends_once_though_the_database_is_killed(
    server_process: StartServer, data_folder: Path
) -> None:
    folder = data_folder.parent / "database"
    folder.mkdir()
    with joined(folder) as member:
        await migrate(member.cluster.url())
        administrator_url = member.cluster.url(user=SUPERUSER)
        await ask(administrator_url, lambda connection: connection.execute(fenced.SCHEMA))
        fleet = await start_fleet(server_process, member.cluster.url(), administrator_url, data_folder)
        for first in (0, 100):
            request = pb.BatchSubmitExecutionsRequest(
                executions=[spec(number) for number in range(first, first + 100)], request_id=str(uuid4())
            )
            await fleet.call("BatchSubmitExecutions", request)
            wanted = first + fleet.chance.randint(1, 50)

            async def far_enough(wanted: int = wanted) -> bool:
                return bool(await ask(administrator_url, ledger.ended) >= wanted)

            await until(far_enough, seconds=120)
            found = find_postmaster(folder / "postgres" / "data")
            assert found is not None
            os.kill(found[0], signal.SIGKILL)
            await eventually(lambda: answers(administrator_url), seconds=60)

        async def done() -> bool:
            return bool(await ask(administrator_url, ledger.all_is_done))

        await until(done, seconds=200)
        states = await ledger.check(administrator_url)
        assert Counter(states.values()) == {"SUCCEEDED": 192, "FAILED": 8}
        for server in fleet.servers:
            await server.stop()


async def ask(url: str, question: Callable[[Any], Awaitable[Any]]) -> Any:
    """Ask on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        return await question(connection)
    finally:
        await connection.close()


async def answers(url: str) -> bool:
    """Whether the database takes connections."""
    try:
        await ask(url, ledger.ended)
    except (OSError, asyncpg.PostgresError):
        return False
    return True
