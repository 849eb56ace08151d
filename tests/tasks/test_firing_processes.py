"""A test clock over two daylight-saving changes in three zones, with two server processes: each due time once."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import pytest
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.db.engine import Database
from stationmaster_server.tasks.model import Task
from stationmaster_server.tasks.schedules import next_times
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import ServerProcess, StartServer
from tests.tasks import clocked_server
from tests.tasks.test_schedules_served import stored
from tests.waiting import until

ZONES = {"berlin": "Europe/Berlin", "howe": "Australia/Lord_Howe", "santiago": "America/Santiago"}
CRONS = {"daily": "15 2 * * *", "running": "*/45 0-4 * * *"}
ALIKE = 4  # tasks of each
# Around both changes of each of their clocks in 2026.
WINDOWS = [
    ("2026-03-28T12", "2026-03-30T00"),
    ("2026-04-04T00", "2026-04-06T00"),
    ("2026-09-05T12", "2026-09-07T00"),
    ("2026-10-03T00", "2026-10-04T12"),
    ("2026-10-24T12", "2026-10-26T00"),
]
# When 02:15 is on the days of the changes: it is skipped in spring in Berlin and, by half an hour, on Lord Howe Island.
CHANGES = {
    "berlin": {datetime(2026, 3, 29, 1, 0, tzinfo=UTC), datetime(2026, 10, 25, 0, 15, tzinfo=UTC)},
    "howe": {datetime(2026, 4, 4, 15, 45, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC)},
    "santiago": {datetime(2026, 4, 5, 6, 15, tzinfo=UTC), datetime(2026, 9, 6, 5, 15, tzinfo=UTC)},
}
LOOK_SECONDS = 1.05  # a server looks every second
STEP, CATCH_UP = timedelta(hours=5, minutes=7), timedelta(hours=6)


def looks() -> list[datetime]:
    """What the clock shows, one after the other."""
    shown = []
    for begin, end in WINDOWS:
        at = datetime.fromisoformat(begin).replace(tzinfo=UTC)
        while at < datetime.fromisoformat(end).replace(tzinfo=UTC):
            shown.append(at)
            at += STEP
    return shown


class Pair:
    """Two servers on one database that go by one clock, either of which may be killed."""

    def __init__(self, start: StartServer, database: Database, database_url: str, folder: Path) -> None:
        self._start = start
        self._database = database
        self._url = database_url
        self._folder = folder
        self._clock = folder / "clock"
        self.servers: list[ServerProcess] = []
        self.fired_by: list[float] = []
        """How many times each server process has fired, as it said last."""

    async def start(self) -> None:
        """Start another one."""
        program = (str(Path(clocked_server.__file__)), str(self._clock))
        environment = {"STATIONMASTER_WORK__LEASE": "10s"}
        folder = self._folder / f"server-{len(self.servers) % 2}"
        server = await self._start(database_url=self._url, folder=folder, program=program, environment=environment)
        self.servers.append(server)
        self.fired_by.append(0.0)

    def show(self, at: datetime) -> None:
        """Set the clock, in one go; all servers look at it at the same moment."""
        new = self._clock.with_suffix(".new")
        new.write_text(f"{at.isoformat()} {time.time() + LOOK_SECONDS}")
        new.replace(self._clock)

    async def settled(self, at: datetime) -> bool:
        """Whether nothing is due any more."""
        async with self._database.system(autocommit=True) as tx:
            return not await tx.fetchval("SELECT EXISTS (SELECT FROM tasks WHERE next_fire_at <= $1)", at)

    async def fired(self) -> int:
        """How many due times were fired."""
        async with self._database.system(autocommit=True) as tx:
            return int(await tx.fetchval("SELECT sum(fired) FROM tasks"))

    async def count(self) -> None:
        """Ask each server that lives how many due times it has fired."""
        async with httpx2.AsyncClient() as client:
            for number, server in enumerate(self.servers):
                if server.process.returncode is None:
                    text = (await client.get(f"http://127.0.0.1:{server.admin_port}/metrics")).text
                    found = re.search(r'stationmaster_schedules_due_total\{outcome="FIRED"\} (\S+)', text)
                    assert found is not None
                    self.fired_by[number] = float(found[1])

    async def kill_amid_the_firing(self, number: int, before: int) -> None:
        """SIGKILL a server once anything more was fired."""

        async def some_more() -> bool:
            return await self.fired() > before

        await until(some_more)
        await self.servers[number].kill()


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_two_server_processes_fire_each_due_time_once_over_changes_of_the_clock_and_kills(
    server_process: StartServer, database: Database, database_url: str, data_folder: Path
) -> None:
    pair = Pair(server_process, database, database_url, data_folder.parent)
    shown = looks()
    pair.show(shown[0])
    await pair.start()
    await pair.start()
    async with pair.servers[0].channel() as channel:
        names = await create_all(TaskServiceStub(channel))
    for number, at in enumerate(shown):
        before = await pair.fired()
        if number == 17:
            await pair.start()
        if number in (14, 21):
            await pair.count()
        pair.show(at)
        if number == 14:  # amid the night of Santiago's change, and the other one is alone for a while
            await pair.kill_amid_the_firing(0, before)
        if number == 21:  # now the other one, and a new one takes its place at once
            await pair.kill_amid_the_firing(1, before)
            await pair.start()
        await until(partial(pair.settled, at), seconds=30)
    await pair.count()
    assert all(pair.fired_by), "each process took part"
    for name in names:
        await check(database, await stored(database, name), shown)
    for name, changes in CHANGES.items():
        assert changes <= set(await fired(database, await stored(database, f"{name}-daily-0")))
    await until(partial(all_succeeded, database), seconds=60)


def test_each_zone_changes_its_clock_twice_while_the_clock_of_the_test_is_shown() -> None:
    for name in ZONES.values():
        zone = ZoneInfo(name)
        spans = [[datetime.fromisoformat(end).replace(tzinfo=UTC) for end in window] for window in WINDOWS]
        offsets = [[end.astimezone(zone).utcoffset() for end in span] for span in spans]
        assert sum(begin != end for begin, end in offsets) == 2, name


async def create_all(tasks: Any) -> list[str]:
    """Tasks for each zone and expression; their ids."""
    payload = struct({"targets": ["request_ids"], "older_than_days": 1})
    names = []
    for zone, time_zone in ZONES.items():
        for kind, cron in CRONS.items():
            schedule = pb.Schedule(
                cron=cron,
                time_zone=time_zone,
                overlap=pb.OVERLAP_POLICY_ALLOW_ALL,
                catch_up=Duration(seconds=int(CATCH_UP.total_seconds())),
            )
            for number in range(ALIKE):
                task = pb.Task(kind="cleanup", payload=payload, schedule=schedule)
                names.append(f"{zone}-{kind}-{number}")
                await tasks.CreateTask(pb.CreateTaskRequest(task_id=names[-1], task=task))
    return names


async def check(database: Database, task: Task, shown: list[datetime]) -> None:
    """Each time that was due has one execution, or is counted as missed because nobody looked in time."""
    assert task.schedule is not None
    due = [one.due_at for one in next_times(task.schedule, shown[0], 5000) if one.due_at <= shown[-1]]
    seen = [(at, min(look for look in shown if look >= at)) for at in due]
    expected = [at for at, look in seen if look - at <= CATCH_UP]
    assert await fired(database, task) == expected, task.task_id
    assert (task.fired, task.skipped) == (len(expected), {"MISSED": len(due) - len(expected)}), task.task_id
    assert len(expected) >= len(WINDOWS)


async def fired(database: Database, task: Task) -> list[datetime]:
    """The due times that there are executions for."""
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch("SELECT scheduled_for FROM executions WHERE task_uid = $1 ORDER BY 1", task.uid)
    return [row["scheduled_for"] for row in rows]


async def all_succeeded(database: Database) -> bool:
    """Whether every execution has run to its end."""
    async with database.system(autocommit=True) as tx:
        return bool(
            await tx.fetchval("SELECT bool_and(state = 'SUCCEEDED') FROM work_items WHERE kind = 'task.cleanup'")
        )
