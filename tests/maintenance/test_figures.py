"""What services did is counted once: whoever leaves, in whatever order, and whoever was taken for gone and returns."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.maintenance import status_store, store
from stationmaster_server.maintenance.model import Figures, Policy

from tests.maintenance.conftest import Host, Start
from tests.maintenance.services import Sample
from tests.maintenance.test_runner import figures, fine, ran
from tests.waiting import until

SELDOM = Policy(timedelta(hours=1))


async def counted(database: Database) -> tuple[int, int]:
    """How many runs all servers did together, and how many servers are there."""
    async with database.system(autocommit=True) as tx:
        totals, servers = (await store.all_figures(tx))["sample"]
    return totals.completed, len(servers)


async def silent(database: Database, host: Host, seconds: float) -> None:
    """Have it that a server said nothing for so long."""
    async with database.system(autocommit=True) as tx:
        sql = "UPDATE servers SET seen_at = now() - $2::interval WHERE server_id = $1 RETURNING true"
        assert await tx.fetchval(sql, host.registry.server_id, timedelta(seconds=seconds))


async def start(host: Start, *, runs: int = 1) -> Host:
    """A server that did so many runs, and told of them."""
    service = Sample(fine, policy=SELDOM)
    server = await host(service)
    await until(ran(service, 1))
    for _ in range(runs - 1):
        await server.registry.runner("sample").run_now()

    async def done() -> bool:
        return figures(server).completed == runs

    await until(done)
    await server.registry._tell()
    return server


async def leave(server: Host) -> None:
    """It stops."""
    await server.registry.__aexit__(None, None, None)


async def test_runs_of_servers_that_leave_at_once_stay_counted(host: Start, database: Database) -> None:
    first, *others = [await start(host, runs=runs) for runs in (1, 2, 3, 4)]
    await leave(first)
    await asyncio.gather(*(leave(server) for server in others[1:]))
    assert await counted(database) == (10, 1)
    # However the two meet: one has added its figures, and has not committed, when the other does.
    another = new_id()
    async with database.system() as tx:
        await status_store.seen(tx, another, "another", "1.0", "", {}, ())
        await store.put_figures(tx, another, {"sample": Figures(completed=1)})
    async with database.system() as tx:
        await store.drop_servers(tx, timedelta(hours=1), another)
        leaving = asyncio.create_task(leave(others[0]))

        async def waits_or_is_gone() -> bool:
            async with database.system(autocommit=True) as other:
                sql = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                return leaving.done() or bool(await other.fetchval(sql))

        await until(waits_or_is_gone)
    await leaving
    assert await counted(database) == (11, 0)


@pytest.mark.parametrize("outage", [40, 2 * 86_400], ids=["of 40 s", "of two days"])
async def test_runs_of_a_server_that_was_taken_for_gone_are_not_counted_twice(
    host: Start, database: Database, outage: float
) -> None:
    away, here = await start(host, runs=3), await start(host)
    for run in (1, 2):  # it goes away twice
        await silent(database, away, outage)
        await here.registry._tell()
        assert await counted(database) == (3 + run, 1)
        await away.registry.runner("sample").run_now()
        await away.registry._tell()
        assert await counted(database) == (4 + run, 2)
    await asyncio.gather(leave(away), leave(here))
    assert await counted(database) == (6, 0)


async def test_two_that_find_the_same_server_gone_count_it_once(host: Start, database: Database) -> None:
    gone, *others = [await start(host, runs=runs) for runs in (5, 1, 1)]
    await silent(database, gone, 2 * 86_400)
    await asyncio.gather(*(server.registry._tell() for server in others))
    assert await counted(database) == (7, 2)
