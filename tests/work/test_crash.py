"""Workers that die, stall or lose the database: nothing is lost, nobody writes after the replacement."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import LeaseLost, Unavailable
from stationmaster_server.work import claim_store
from stationmaster_server.work.model import Outcome, RetryPolicy, State, Succeeded
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import WorkerSettings

from tests.work.conftest import LIMIT, Gate, Server, StartServer, eventually

LEASE = timedelta(seconds=2)
SETTINGS = WorkerSettings(lease=LEASE, poll=timedelta(milliseconds=200))
DOOMED = Path(__file__).with_name("doomed_worker.py")


async def start_doomed(url: str) -> asyncio.subprocess.Process:
    """A worker in a process of its own, whose handler never ends."""
    return await asyncio.create_subprocess_exec(sys.executable, str(DOOMED), url, str(LEASE.total_seconds()))


async def test_after_kill_9_another_worker_takes_over_within_the_lease_and_a_second(
    start_server: StartServer, database_url: str
) -> None:
    client = await start_server()
    item = await client.submit("doomed")
    process = await start_doomed(database_url)
    try:
        first = await client.reaches(item.item_id, State.RUNNING)
        gate = Gate()
        await start_server({"doomed": gate}, SETTINGS)
        await asyncio.sleep(0.5)
        assert not gate.runs
    finally:
        process.send_signal(signal.SIGKILL)
        died = time.monotonic()
        await process.wait()
    await asyncio.wait_for(gate.begun.wait(), LIMIT)
    assert time.monotonic() - died < LEASE.total_seconds() + 1
    assert gate.runs[0].attempt == 2
    assert gate.runs[0].lease_token != first.lease_token
    gate.open.set()
    item = await client.reaches(item.item_id, State.SUCCEEDED)
    assert [error["reason"] for error in item.errors] == ["LEASE_EXPIRED"]


async def test_a_worker_that_was_stopped_and_wakes_up_after_its_replacement_cannot_write(
    start_server: StartServer, database_url: str
) -> None:
    client = await start_server()
    item = await client.submit("writes_when_awake")
    process = await start_doomed(database_url)
    try:
        await client.reaches(item.item_id, State.RUNNING)
        process.send_signal(signal.SIGSTOP)
        gate = Gate(Succeeded({"by": "replacement"}))
        server = await start_server({"writes_when_awake": gate}, SETTINGS)
        await asyncio.wait_for(gate.begun.wait(), LIMIT)
        process.send_signal(signal.SIGCONT)
        assert await asyncio.wait_for(process.wait(), LIMIT) == 3  # it saw LeaseLost
        assert (await server.get(item.item_id)).lease_token == gate.runs[0].lease_token
        gate.open.set()
        assert (await client.reaches(item.item_id, State.SUCCEEDED)).result == {"by": "replacement"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_stalled_worker_cannot_complete_after_its_lease_was_taken_over(start_server: StartServer) -> None:
    caught: list[Exception] = []

    async def stalls(run: Run) -> Outcome:
        if run.attempt == 2:
            return Succeeded({"by": "replacement"})
        await expire(server, run.item.item_id)
        await replaced.wait()
        try:
            async with server.database.system() as tx:
                await server.queue.complete(tx, run, Succeeded({"by": "stalled"}))
        except LeaseLost as error:
            caught.append(error)
            raise
        return Succeeded()

    replaced = asyncio.Event()
    # Its heart never beats: it does not learn that the lease is gone.
    server = await start_server({"noop": stalls}, WorkerSettings(lease=timedelta(hours=1), reap=timedelta(hours=1)))
    item = await server.submit(claim_here=True)
    assert server.worker is not None
    await server.reaches(item.item_id, State.RUNNING)
    async with asyncio.timeout(LIMIT):
        while not await server.worker._reaper.reap():  # noqa: ASYNC110 - the lease expires by the database's clock
            await asyncio.sleep(0.01)
    item = await server.reaches(item.item_id, State.SUCCEEDED)
    replaced.set()
    await eventually(lambda: bool(caught))
    assert (await server.get(item.item_id)).result == {"by": "replacement"}


async def expire(server: Server, item_id: UUID) -> None:
    async with server.database.system() as tx:
        await tx.execute("UPDATE work_items SET lease_expires_at = now() - interval '1 s' WHERE item_id = $1", item_id)


async def test_a_worker_that_lost_its_lease_is_told_and_its_handler_ended(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate})
    item = await server.submit(claim_here=True)
    await gate.begun.wait()
    async with server.database.system() as tx:
        await tx.execute("UPDATE work_items SET lease_token = gen_random_uuid()")
    await eventually(lambda: gate.runs[0].lost)
    with pytest.raises(LeaseLost):
        gate.runs[0].heartbeat()
    await eventually(lambda: gate.runs[0].task is not None and gate.runs[0].task.done())
    assert (await server.get(item.item_id)).state is State.RUNNING


async def test_a_long_run_keeps_its_lease(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate})
    item = await server.submit(claim_here=True)
    await asyncio.sleep(2)
    gate.open.set()
    assert (await server.reaches(item.item_id, State.SUCCEEDED)).attempt == 1


async def test_an_item_whose_workers_keep_dying_ends_as_dead(idle: Server, start_server: StartServer) -> None:
    reaping = await start_server({"other": Gate()})
    item = await idle.submit(retry=RetryPolicy(attempts=2))
    for after in (State.QUEUED, State.DEAD):
        async with idle.database.system(autocommit=True) as tx:
            (claimed,) = await claim_store.claim(tx, ["noop"], 1, LEASE, "test", timedelta(milliseconds=50))
        assert claimed.item_id == item.item_id
        item = await reaping.reaches(item.item_id, after)
    assert [error["attempt"] for error in item.errors] == [1, 2]


async def test_an_item_that_a_transaction_holds_locked_does_not_cost_the_others_their_leases(
    start_server: StartServer,
) -> None:
    gate = Gate()
    server = await start_server({"noop": gate})
    items = [await server.submit(claim_here=True) for _ in range(5)]
    async with server.database.system() as tx:
        await tx.execute("SELECT FROM work_items WHERE item_id = $1 FOR UPDATE", items[0].item_id)
        await asyncio.sleep(2)
        for item in items[1:]:
            assert (await server.get(item.item_id)).lease_token == item.lease_token
    gate.open.set()
    for item in items:
        await server.reaches(item.item_id, State.SUCCEEDED)


async def test_ends_are_written_after_an_outage_once(
    start_server: StartServer, database: Database, database_url: str
) -> None:
    gate = Gate(Succeeded({"n": 1}))
    server = await start_server({"noop": gate}, WorkerSettings(lease=timedelta(seconds=30)))
    items = [await server.submit(claim_here=True) for _ in range(3)]
    await gate.begun.wait()
    administrator = await asyncpg.connect(database_url)
    await administrator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await administrator.close()
    gate.open.set()
    for item in items:
        async with asyncio.timeout(LIMIT):
            await eventually_succeeded(server, item.item_id)


async def eventually_succeeded(server: Server, item_id: UUID) -> None:
    while True:
        try:
            item = await server.reaches(item_id, State.SUCCEEDED)
        except (Unavailable, asyncpg.InternalClientError):  # the latter: a connection that died while idle
            continue
        assert item.attempt == 1
        return
