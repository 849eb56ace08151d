"""Several servers, each a process: settings reach all of them, and what one leaves when it is killed another does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import asyncpg
import httpx2
import pytest
from stationmaster.v1 import maintenance_pb2 as pb
from stationmaster_client import Client
from stationmaster_client.errors import FailedPrecondition
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance.model import Scope

from tests.fixtures.server import RunningServer, ServerProcess, StartServer, running, server_settings
from tests.maintenance.conftest import LEASE, Start
from tests.maintenance.services import Sample
from tests.maintenance.test_runner import ran
from tests.waiting import until

EVICTION = "backgroundServices/model-client-eviction"


async def rounds(server: ServerProcess) -> float:
    """How often the service ran on this server, as its own metrics say."""
    async with httpx2.AsyncClient() as http:
        text = (await http.get(f"http://127.0.0.1:{server.admin_port}/metrics")).text
    name = 'stationmaster_background_service_runs_completed_total{service="model-client-eviction"}'
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def test_settings_reach_the_other_server_and_what_a_killed_one_did_stays_counted(
    server_process: StartServer, data_folder: Path, database_url: str
) -> None:
    one = await server_process(database_url=database_url)
    other = await server_process(database_url=database_url, folder=data_folder.parent / "other")
    key = one.admin_key
    async with Client.connect(one.target, key) as client:
        before = await rounds(other)
        service = pb.BackgroundService(name=EVICTION)
        service.interval.FromMilliseconds(50)
        await client.maintenance.update(service, ["interval"])

        async def often() -> bool:
            return await rounds(other) > before + 10 and await rounds(one) > before + 10

        assert await until(often)

        async def both_told() -> pb.BackgroundService | None:
            found = await client.maintenance.service(EVICTION)
            return found if len(found.servers) == 2 and found.metrics.completed > 20 else None

        counted = await until(both_told)
        assert counted is not None
        paused = await client.maintenance.pause(EVICTION)
        assert paused.state == pb.BACKGROUND_SERVICE_STATE_PAUSED
    await one.kill()
    async with Client.connect(other.target, key) as client:
        left = await client.maintenance.service(EVICTION)
        assert left.state == pb.BACKGROUND_SERVICE_STATE_PAUSED
        assert left.metrics.completed >= counted.metrics.completed
        assert left.metrics.failed == 0
        # What somebody holds is held for everybody: it runs again once it is resumed, and not before.
        with pytest.raises(FailedPrecondition, match="resume it") as refused:
            await client.maintenance.trigger(EVICTION)
        assert refused.value.reason == "SERVICE_HELD"
        await client.maintenance.resume(EVICTION)
        ended = await client.maintenance.wait((await client.maintenance.trigger(EVICTION)).name)
        assert ended.state == pb.OPERATION_STATE_SUCCEEDED


async def test_an_operation_is_done_by_a_server_that_has_its_service(database_url: str, tmp_path: Path) -> None:
    has_it = {"targets": {"text": {"path": str(tmp_path / "text.db")}}}
    async with (
        running(server_settings(tmp_path / "one", database_url, sync=has_it, work={"slots": 1})) as one,
        running(server_settings(tmp_path / "other", database_url)),
        Client.connect(one.target, one.admin_key) as client,
    ):
        name = "backgroundServices/task-text-store-sync"
        begun = await asyncio.gather(*(client.maintenance.trigger(name, "check") for _ in range(20)))  # for both
        for ended in await asyncio.gather(*(client.maintenance.wait(each.name) for each in begun)):
            assert ended.state == pb.OPERATION_STATE_SUCCEEDED, ended.error


async def test_an_operation_whose_service_no_server_has_any_more_fails_and_says_why(
    server: RunningServer, administrator_url: str
) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        name = (await client.maintenance.trigger("backgroundServices/dependency-cycles", "audit")).name
        await client.maintenance.wait(name)
        connection = await asyncpg.connect(administrator_url)
        tag = await connection.execute(
            """UPDATE work_items
               SET state = 'QUEUED', kind = 'maintenance_operation:gone', result = NULL, reason = NULL,
                   finished_at = NULL, start_deadline = now()
               WHERE item_id = $1""",
            UUID(name.removeprefix("operations/")),
        )
        await connection.close()
        assert tag == "UPDATE 1"
        ended = await client.maintenance.wait(name)
        assert ended.state == pb.OPERATION_STATE_FAILED
        assert ended.error == "no server that has this service took it in time"


class Lease(NamedTuple):
    """Whose run it is, until when, and the time by the same clock."""

    token: UUID | None
    expires_at: datetime | None
    now: datetime


async def lease(database: Database) -> Lease:
    """The lease of the sample."""
    async with database.system(autocommit=True) as tx:
        row = await tx.fetchrow(
            "SELECT token, expires_at, clock_timestamp() FROM background_leases WHERE service_id = 'sample'"
        )
    assert row is not None
    return Lease(*row)


async def test_a_run_of_a_killed_server_is_taken_over_when_its_lease_has_run_out_and_not_before(
    host: Start, database: Database, database_url: str
) -> None:
    leases: list[Lease] = []

    async def note() -> None:
        leases.append(await lease(database))

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.maintenance.doomed", database_url, str(3 * LEASE.total_seconds())),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"running\n"
        held = await lease(database)
        service = Sample(note, scope=Scope.ONE_SERVER)
        server = await host(service)
        assert held.token is not None
        assert held.expires_at is not None
        past = held.expires_at + LEASE

        async def kept() -> bool:
            return (await lease(database)).now > past

        await until(kept)  # a lease that was not renewed would have run out
        assert (await lease(database)).token == held.token
        assert service.runs == []
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        left = await lease(database)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    await until(ran(service, 2))
    assert left.token == held.token
    assert left.expires_at is not None
    assert leases[0].now > left.expires_at
    assert leases[0].token not in {None, held.token}
    assert server.registry._runners["sample"].figures.failed == 0
