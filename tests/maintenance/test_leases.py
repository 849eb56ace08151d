"""A service that runs once for all servers: by whom, for how long, and what the next one knows of the last."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
import structlog
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance import store
from stationmaster_server.maintenance.model import Policy, Scope

from tests.maintenance.conftest import Start
from tests.maintenance.services import Sample
from tests.maintenance.test_runner import figures, fine, ran
from tests.waiting import until


async def test_one_for_all_servers_runs_once_however_many_there_are(host: Start) -> None:
    running, most = [0], [0]

    async def alone() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.01)
        running[0] -= 1

    policy = Policy(timedelta(milliseconds=100))
    services = [Sample(alone, scope=Scope.ONE_SERVER, policy=policy) for _ in range(3)]
    for service in services:
        await host(service)

    async def often() -> bool:
        return sum(len(service.runs) for service in services) >= 20

    await until(often, seconds=30)
    assert most[0] == 1
    starts = sorted(at for service in services for at in service.runs)
    assert min(following - one for one, following in pairwise(starts)) > 0.09


async def test_a_run_that_outlives_a_lease_keeps_it(host: Start) -> None:
    async def long() -> None:
        await asyncio.sleep(2.5)  # more than two leases of the tests

    services = [Sample(long, scope=Scope.ONE_SERVER, policy=Policy(timedelta(hours=1))) for _ in range(2)]
    servers = [await host(service) for service in services]

    async def ended() -> bool:
        return any(figures(server).completed for server in servers)

    await until(ended)
    assert sum(len(service.runs) for service in services) == 1


async def test_a_run_whose_lease_cannot_be_renewed_ends_before_another_server_may_take_it_over(
    host: Start, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, runs_out, ended = asyncio.get_running_loop().time, list[float](), list[float]()

    async def long() -> None:
        async with database.system(autocommit=True) as tx:
            left = await tx.fetchval("SELECT expires_at - clock_timestamp() FROM background_leases")
        runs_out.append(clock() + left.total_seconds())
        try:
            await asyncio.sleep(10_000)
        finally:
            ended.append(clock())

    async def silent(*_: object) -> bool:
        await asyncio.sleep(10_000)
        return True

    monkeypatch.setattr(store, "renew", silent)
    await host(Sample(long, scope=Scope.ONE_SERVER, policy=Policy(timedelta(hours=1))))

    async def over() -> bool:
        return bool(ended)

    await until(over)
    assert ended[0] < runs_out[0] + 0.2  # what a busy machine may add


async def test_a_run_that_ended_with_its_lease_is_told_in_the_log(host: Start, database: Database) -> None:
    async def long() -> None:
        await asyncio.sleep(10_000)

    service = Sample(long, scope=Scope.ONE_SERVER, policy=Policy(timedelta(hours=1)))
    with structlog.testing.capture_logs() as log:
        await host(service)
        await until(ran(service, 1))
        async with database.system(autocommit=True) as tx:
            await tx.execute("UPDATE background_leases SET token = gen_random_uuid()")

        async def told() -> bool:
            return any("lease" in entry["event"] and entry.get("service") == "sample" for entry in log)

        await until(told)


async def test_the_alarm_of_many_errors_goes_on_though_another_server_runs_it_well(
    host: Start, database: Database
) -> None:
    first = Sample(fine, scope=Scope.ONE_SERVER, policy=Policy(timedelta(hours=1)))
    await host(first)
    await until(ran(first, 1))
    async with database.system() as tx:  # it was so bad on another server that somebody was told
        for _ in range(30):
            await store.put_error(tx, "sample", "broken")
        await tx.execute("UPDATE background_leases SET told = '{errors}', due_at = now()")
    second = Sample(fine, scope=Scope.ONE_SERVER, policy=Policy(timedelta(milliseconds=50)))
    server = await host(second)
    await until(ran(second, 3))
    assert server.alarms.told == []
    async with database.system() as tx:
        await tx.execute("UPDATE background_errors SET at = at - interval '1 hour'")

    async def over() -> bool:
        return ("sample", "") in server.alarms.told

    await until(over)
