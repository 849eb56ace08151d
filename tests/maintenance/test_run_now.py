"""The operation `run`: a service's ordinary round, at once, by its settings, under its lease; not of what is held."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
from stationmaster.v1 import agent_pb2
from stationmaster.v1 import maintenance_pb2 as pb
from stationmaster_client import Client
from stationmaster_client.errors import FailedPrecondition as Refused
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import FailedPrecondition, Reason, Unavailable
from stationmaster_server.maintenance.model import Policy, Scope, ServiceState, Settings
from stationmaster_server.maintenance.waking import RunFailed, RunsElsewhere

from tests.fixtures.server import RunningServer
from tests.maintenance.conftest import Start
from tests.maintenance.services import Sample
from tests.maintenance.test_compaction import DELTAS, kinds, said
from tests.maintenance.test_runner import failing, figures, fine, ran, set_to
from tests.waiting import until

SELDOM = Policy(timedelta(hours=1), retry_delay=timedelta(milliseconds=20))
NAME = "backgroundServices/event-compaction"
SCOPES = pytest.mark.parametrize("scope", [Scope.EVERY_SERVER, Scope.ONE_SERVER])


@SCOPES
async def test_it_runs_though_it_is_not_due_by_settings_that_were_stored_a_moment_ago(
    host: Start, database: Database, scope: Scope
) -> None:
    service = Sample(fine, policy=SELDOM, scope=scope)
    server = await host(service)
    await until(ran(service, 1))
    await set_to(database, Settings(own={"word": "new"}))
    runs = len(service.runs)
    await server.registry.runner("sample").run_now()
    assert len(service.runs) > runs
    assert service.words == ["default", "new"]
    assert figures(server).completed == len(service.runs)


@SCOPES
@pytest.mark.parametrize("held", [Settings(paused=True, pause_reason="the disk"), Settings(enabled=False)])
async def test_what_is_held_is_not_run(host: Start, database: Database, scope: Scope, held: Settings) -> None:
    service = Sample(fine, policy=SELDOM, scope=scope)
    server = await host(service)
    await until(ran(service, 1))
    await set_to(database, held)
    with pytest.raises(FailedPrecondition, match=r"the disk.*resume it|switched off.*enable it") as refused:
        await server.registry.runner("sample").run_now()
    assert refused.value.reason is Reason.SERVICE_HELD
    assert len(service.runs) == 1


@SCOPES
async def test_one_that_is_paused_while_it_runs_is_ended(host: Start, database: Database, scope: Scope) -> None:
    entered = asyncio.Event()

    async def slow() -> None:
        entered.set()
        await asyncio.sleep(10_000)

    service = Sample(fine, policy=SELDOM, scope=scope)
    server = await host(service)
    await until(ran(service, 1))
    service.do(slow)
    asked = asyncio.create_task(server.registry.runner("sample").run_now())
    await asyncio.wait_for(entered.wait(), 10)
    await set_to(database, Settings(paused=True))
    with pytest.raises(FailedPrecondition):
        await asyncio.wait_for(asked, 10)


async def test_it_takes_the_lease_and_runs_beside_no_other_server(host: Start) -> None:
    running, most = [0], [0]
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def alone() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        entered.set()
        await go_on.wait()
        running[0] -= 1

    one, other = (Sample(alone, policy=SELDOM, scope=Scope.ONE_SERVER) for _ in range(2))
    first = await host(one)
    await asyncio.wait_for(entered.wait(), 10)
    second = await host(other)
    with pytest.raises(RunsElsewhere):
        await second.registry.runner("sample").run_now()
    go_on.set()

    async def ended() -> bool:
        return figures(first).completed == 1

    await until(ended)

    async def ran_here() -> bool:
        try:
            await second.registry.runner("sample").run_now()
        except RunsElsewhere:  # the lease is given back a moment after the run
            return False
        return True

    await until(ran_here)
    assert (len(one.runs), len(other.runs), most[0]) == (1, 1, 1)


@SCOPES
async def test_its_failure_is_the_services_which_is_tried_again_with_growing_pauses(host: Start, scope: Scope) -> None:
    service = Sample(fine, policy=Policy(timedelta(hours=1), retry_delay=timedelta(milliseconds=300)), scope=scope)
    server = await host(service)
    await until(ran(service, 1))
    service.do(failing(2))
    with pytest.raises(RunFailed, match="broken, 1 to go"):
        await server.registry.runner("sample").run_now()
    assert (figures(server).failed, figures(server).state) == (1, ServiceState.FAILING)
    await until(ran(service, 4))
    first, second = [following - one for one, following in pairwise(service.runs[1:])]
    assert first > 0.25
    assert second > 0.5
    assert figures(server).failed == 2


async def test_a_database_that_is_away_is_told_as_that(host: Start) -> None:
    service = Sample(fine, policy=SELDOM)
    server = await host(service)
    await until(ran(service, 1))
    service.do(failing(1, Unavailable(Reason.DATABASE_UNAVAILABLE, "the database is away")))
    with pytest.raises(Unavailable):
        await server.registry.runner("sample").run_now()
    assert figures(server).failed == 0


async def test_who_waits_for_a_run_hears_that_the_server_stops(host: Start) -> None:
    async def slow() -> None:
        await asyncio.sleep(10_000)

    service = Sample(fine, policy=SELDOM)
    server = await host(service)
    await until(ran(service, 1))
    service.do(slow)
    asked = [asyncio.create_task(server.registry.runner("sample").run_now()) for _ in range(2)]
    await until(ran(service, 2))
    await server.registry.__aexit__(None, None, None)
    for one in asked:
        with pytest.raises(Unavailable) as stopped:
            await asyncio.wait_for(one, 10)
        assert stopped.value.reason is Reason.SERVER_STOPPING
    with pytest.raises(Unavailable):  # nor does anybody wait who comes too late
        await asyncio.wait_for(server.registry.runner("sample").run_now(), 10)


async def test_the_operation_goes_by_stored_settings_waits_for_the_lease_and_is_refused_while_it_is_held(
    server: RunningServer, database: Database
) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        first = await client.maintenance.wait((await client.maintenance.trigger(NAME)).name)
        assert first.state == pb.OPERATION_STATE_SUCCEEDED
        session = (await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo"))).name
        await client.sessions.ask(session, "tell me something of trains")
        assert kinds(await said(client, session)) & DELTAS
        async with database.system(autocommit=True) as tx:  # another server runs it
            await tx.execute(
                """UPDATE background_leases SET token = gen_random_uuid(), expires_at = now() + interval '1 hour'
                   WHERE service_id = 'event-compaction'"""
            )
        service = pb.BackgroundService(name=NAME)
        service.settings.update({"after_hours": 0})
        await client.maintenance.update(service, ["settings"])
        waiting = await client.maintenance.trigger(NAME)

        async def tried() -> bool:
            async with database.system(autocommit=True) as tx:
                sql = "SELECT started_at IS NOT NULL AND state = 'QUEUED' FROM work_items WHERE item_id::text = $1"
                return bool(await tx.fetchval(sql, waiting.name.removeprefix("operations/")))

        await until(tried)
        assert kinds(await said(client, session)) & DELTAS
        async with database.system(autocommit=True) as tx:  # it is done
            await tx.execute("UPDATE background_leases SET token = NULL, expires_at = NULL")
        ended = await client.maintenance.wait(waiting.name)
        assert (ended.state, ended.attempts) == (pb.OPERATION_STATE_SUCCEEDED, 1)
        assert not kinds(await said(client, session)) & DELTAS
        await client.maintenance.pause(NAME, "until Monday")
        with pytest.raises(Refused, match=r"until Monday.*resume it") as refused:
            await client.maintenance.trigger(NAME)
        assert refused.value.reason == "SERVICE_HELD"
