"""Workers that die, stall or lose the database: nothing is lost, nobody writes after the replacement."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import LeaseLost, Unavailable
from stationmaster_server.work import claim_store
from stationmaster_server.work.model import Outcome, RetryPolicy, State, Succeeded, WorkItem
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import WorkerSettings

from tests.fixtures.outage import Outage
from tests.work.conftest import LIMIT, Gate, Server, StartServer, eventually

LEASE = timedelta(seconds=2)
SETTINGS = WorkerSettings(lease=LEASE, poll=timedelta(milliseconds=200))
DOOMED = Path(__file__).with_name("doomed_worker.py")


async def start_doomed(url: str) -> asyncio.subprocess.Process:
    """A worker in a process of its own, whose handler never ends."""
    return await asyncio.create_subprocess_exec(sys.executable, str(DOOMED), url, str(LEASE.total_seconds()))


async def test_after_kill_9_another_worker_takes_over_when_the_lease_is_over(
    start_server: StartServer, database_url: str
) -> None:
    client = await start_server()
    item = await client.submit("doomed")
    process = await start_doomed(database_url)
    try:
        first = await client.reaches(item.item_id, State.RUNNING)
        gate = Gate()
        replacement = await start_server({"doomed": gate}, SETTINGS)
        for _ in range(2):
            await lease_renewed(replacement, item.item_id)
        assert not gate.runs
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with client.database.system(autocommit=True) as tx:
        died = await tx.fetchval("SELECT now()")
    await asyncio.wait_for(gate.begun.wait(), LIMIT)
    item = gate.runs[0].item
    async with client.database.system(autocommit=True) as tx:
        taken = await tx.fetchval("SELECT now()")
    assert taken - died < LEASE + timedelta(seconds=30)  # by the database's clock, on a busy machine
    assert item.attempt == 2
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
        # The lease expires by the database's clock; the reaper's own first round may come before ours.
        while not await server.worker._reaper.reap() and (await server.get(item.item_id)).attempt < 2:  # noqa: ASYNC110
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
    for _ in range(4):
        await lease_renewed(server, item.item_id)
    gate.open.set()
    assert (await server.reaches(item.item_id, State.SUCCEEDED)).attempt == 1


async def lease_end(server: Server, item_id: UUID) -> datetime | None:
    async with server.database.system(autocommit=True) as tx:
        end: datetime | None = await tx.fetchval("SELECT lease_expires_at FROM work_items WHERE item_id = $1", item_id)
    return end


async def lease_renewed(server: Server, item_id: UUID) -> None:
    before = await lease_end(server, item_id)
    async with asyncio.timeout(LIMIT):
        while await lease_end(server, item_id) == before:  # noqa: ASYNC110 - it is in the database
            await asyncio.sleep(0.01)


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
        for _ in range(4):
            await lease_renewed(server, items[1].item_id)
        for item in items[1:]:
            assert (await server.get(item.item_id)).lease_token == item.lease_token
    gate.open.set()
    for item in items:
        await server.reaches(item.item_id, State.SUCCEEDED)


async def test_who_lived_through_an_outage_longer_than_its_lease_keeps_what_it_runs(
    start_server: StartServer, outage: Outage, administrator_url: str
) -> None:
    runs, ends = Gate(), Gate(Succeeded({"by": "the first attempt"}))
    # Reapers look so often that they are always before the hearts.
    server = await start_server({"runs": runs, "ends": ends}, replace(SETTINGS, reap=timedelta(milliseconds=10)))
    other = await start_server({"other": Gate()}, replace(SETTINGS, reap=timedelta(milliseconds=10)))
    running, ending = [await server.submit(kind, claim_here=True) for kind in ("runs", "ends")]
    await asyncio.gather(runs.begun.wait(), ends.begun.wait())
    await outage.begin()
    ends.open.set()
    await past_the_lease(administrator_url)
    await outage.end()
    item = await reaches_in_the_end(other, ending.item_id)
    assert (item.attempt, item.result) == (1, {"by": "the first attempt"})
    for _ in range(4):
        await lease_renewed(server, running.item_id)
    runs.open.set()
    item = await server.reaches(running.item_id, State.SUCCEEDED)
    assert (item.attempt, item.errors, len(runs.runs), len(ends.runs)) == (1, [], 1, 1)


async def past_the_lease(administrator_url: str) -> None:
    """The superuser gets in, whatever the limit."""
    administrator = await asyncpg.connect(administrator_url)
    past = "SELECT max(lease_expires_at) < now() - interval '1 s' FROM work_items WHERE state = 'RUNNING'"
    async with asyncio.timeout(LIMIT):
        while not await administrator.fetchval(past):  # noqa: ASYNC110 - it is in the database
            await asyncio.sleep(0.05)
    await administrator.close()


async def test_a_lease_that_nobody_renews_after_an_outage_is_taken_back(
    start_server: StartServer, idle: Server, outage: Outage, administrator_url: str
) -> None:
    item = await idle.submit()
    async with idle.database.system(autocommit=True) as tx:
        await claim_store.claim(tx, ["noop"], 1, LEASE, "test", timedelta(milliseconds=50))
    reaping = await start_server({"other": Gate()})
    await reaping.reaches(item.item_id, State.QUEUED)
    async with idle.database.system(autocommit=True) as tx:
        await claim_store.claim(tx, ["noop"], 1, LEASE, "test", timedelta(seconds=1))
    await outage.begin()
    await past_the_lease(administrator_url)
    await outage.end()
    assert (await reaches_in_the_end(reaping, item.item_id, State.QUEUED)).attempt == 2


async def reaches_in_the_end(server: Server, item_id: UUID, state: State = State.SUCCEEDED) -> WorkItem:
    """As `reaches`, through an outage."""
    async with asyncio.timeout(LIMIT):
        while True:
            with suppress(Unavailable, asyncpg.InternalClientError):  # the latter: a connection that died while idle
                return await server.reaches(item_id, state)
            await asyncio.sleep(0.01)


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
        assert (await reaches_in_the_end(server, item.item_id)).attempt == 1


async def test_a_worker_stops_within_its_grace_though_the_database_is_away(
    start_server: StartServer, outage: Outage
) -> None:
    gate = Gate()
    server = await start_server({"noop": gate}, WorkerSettings(lease=timedelta(hours=1)))
    await server.submit(claim_here=True)
    await gate.begun.wait()
    await outage.begin()
    gate.open.set()
    assert server.worker is not None
    async with asyncio.timeout(LIMIT):
        await server.worker.stop(timedelta(milliseconds=100))
