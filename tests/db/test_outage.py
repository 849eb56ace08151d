"""PostgreSQL goes away and comes back: calls are refused at once, then served again, by the same Database."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from stationmaster_server.db.embedded import supervisor
from stationmaster_server.db.embedded.server import Membership
from stationmaster_server.db.engine import Database
from stationmaster_server.db.errors import NotMigrated
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.migrate import migrate
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import Reason, Unavailable

from tests.db.conditions import eventually
from tests.db.test_embedded import folder, joined

__all__ = ["folder"]

TENANT = Tenant(new_id(), new_id())


@pytest_asyncio.fixture
async def ours(folder: Path) -> AsyncIterator[Membership]:
    """A PostgreSQL of this test alone."""
    with joined(folder) as member:
        await migrate(member.cluster.url())
        yield member


async def connect(member: Membership) -> Database:
    return await Database.connect(
        member.cluster.url(), pool_size=4, system_pool_size=2, connect_timeout=timedelta(seconds=10)
    )


async def answers(database: Database) -> bool:
    try:
        async with database.tenant(TENANT, read=True) as tx:
            await tx.fetchval("SELECT 1")
    except Unavailable:
        return False
    return True


async def test_an_outage_is_unavailable_at_once_and_ends_by_itself(ours: Membership, folder: Path) -> None:
    database = await connect(ours)
    assert await answers(database)
    ours.leave()
    for attempt in (database.tenant(TENANT, read=True), database.tenant(TENANT), database.system()):
        started = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            async with attempt as tx:
                await tx.fetchval("SELECT 1")
        assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
        assert caught.value.retry_after > timedelta(0)
        assert time.monotonic() - started < 2
    with pytest.raises(Unavailable):
        await database.ping()
    with joined(folder):
        await eventually(lambda: answers(database))
        await database.close()


async def test_a_crash_ends_calls_in_flight_and_no_call_hangs(ours: Membership, folder: Path) -> None:
    database = await connect(ours)
    started: list[int] = []

    async def call(number: int) -> None:
        async with database.tenant(TENANT) as tx:
            await tx.fetchval("SELECT 1")
            started.append(number)
            await tx.fetchval("SELECT pg_sleep($1)", 30.0 if number < 4 else 0.0)

    calls = [asyncio.create_task(call(number)) for number in range(12)]  # four run, eight wait for a connection
    await eventually(lambda: len(started) == 4)
    postgres = supervisor.find_postmaster(folder / "postgres" / "data")
    assert postgres is not None
    os.kill(postgres[0], signal.SIGKILL)
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes[:4])
    assert all(outcome is None or isinstance(outcome, Unavailable) for outcome in outcomes[4:])
    await eventually(lambda: answers(database))
    await database.close()


async def test_a_listener_comes_back_after_an_outage(ours: Membership, folder: Path) -> None:
    database = await connect(ours)
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    listener = Listener(database)
    listener.add("one", heard.put_nowait)
    await listener.start()
    ours.leave()
    with joined(folder):
        assert await asyncio.wait_for(heard.get(), 10) is None
        await listener.stop()
        await database.close()


async def test_start_up_waits_for_the_database_with_a_limit(ours: Membership, folder: Path) -> None:
    ours.leave()
    url = ours.cluster.url()
    with pytest.raises(Unavailable):
        await Database.connect(url, pool_size=1, system_pool_size=1, connect_timeout=timedelta(seconds=0.3))
    waiting = asyncio.create_task(connect(ours))
    with joined(folder):
        database = await asyncio.wait_for(waiting, 10)
        await database.close()


async def test_a_database_without_the_schema_says_what_to_run(folder: Path) -> None:
    with joined(folder) as member, pytest.raises(NotMigrated, match="stationmaster-server migrate"):
        await connect(member)
