"""Ends that handlers write in their own transactions, and what becomes of items when a worker stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import LeaseLost, NotFound
from stationmaster_server.work.model import (
    Outcome,
    Released,
    RetryPolicy,
    State,
    Succeeded,
)
from stationmaster_server.work.run import Run

from tests.work.conftest import LIMIT, NOTHING_BY_ITSELF, QUICK, Gate, Server, StartServer, eventually, noop


async def test_a_completion_that_was_rolled_back_does_not_hide_a_lost_lease(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        with suppress(ZeroDivisionError):
            async with server.database.system() as tx:
                await server.queue.complete(tx, run, Succeeded())
                raise ZeroDivisionError
        runs.append(run)
        await asyncio.Event().wait()
        return Succeeded()

    runs: list[Run] = []
    server = await start_server({"noop": handler})
    await server.submit(claim_here=True)
    await eventually(lambda: bool(runs))
    async with server.database.system() as tx:
        await tx.execute("UPDATE work_items SET lease_token = gen_random_uuid()")
    await eventually(lambda: runs[0].lost)


async def test_a_handler_ends_its_item_in_its_own_transaction(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        outcome = Succeeded({"by": "handler"})
        async with server.database.system() as tx:
            assert await server.queue.complete(tx, run, outcome) is State.SUCCEEDED
            # A heart that beats meanwhile takes nothing for lost.
            for _ in range(2):
                await server.reaches((await server.submit("other")).item_id, State.SUCCEEDED)
        assert run.settled
        return outcome

    server = await start_server({"noop": handler, "other": noop})
    item = await server.submit()
    assert (await server.reaches(item.item_id, State.SUCCEEDED)).result == {"by": "handler"}
    await eventually(lambda: server.worker is not None and not server.worker._held)


async def test_a_completion_that_is_rolled_back_did_not_happen(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        async with server.database.system() as tx:
            await server.queue.complete(tx, run, Succeeded({"by": "handler"}))
            raise ZeroDivisionError

    server = await start_server({"noop": handler})
    item = await server.submit(retry=RetryPolicy(attempts=1))
    item = await server.reaches(item.item_id, State.DEAD)
    assert (item.result, item.errors[0]["reason"]) == (None, "ZeroDivisionError")


async def test_a_tenant_completes_its_own_items_only(start_server: StartServer, idle: Server) -> None:
    caught: list[type[Exception]] = []

    async def handler(run: Run) -> Outcome:
        async with server.database.tenant(Tenant(new_id(), new_id())) as tx:
            tx.audited = True
            try:
                await server.queue.complete(tx, run, Succeeded())
            except LeaseLost as error:
                caught.append(type(error))
        run.lost = run.completing = False
        async with server.database.tenant(server.tenant) as tx:
            tx.audited = True
            await server.queue.complete(tx, run, Succeeded())
        return Succeeded()

    server = await start_server({"noop": handler})
    item = await server.submit()
    await server.reaches(item.item_id, State.SUCCEEDED)
    assert caught == [LeaseLost]
    async with server.database.tenant(Tenant(new_id(), new_id()), read=True) as tx:
        with pytest.raises(NotFound):
            await server.queue.get(tx, server.tenant.organization_id, item.item_id)


async def test_a_worker_that_stops_lets_its_handlers_finish(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate})
    item = await server.submit(claim_here=True)
    assert server.worker is not None
    stopping = asyncio.create_task(server.worker.stop(timedelta(seconds=10)))
    await gate.begun.wait()
    await eventually(gate.runs[0].stopping.is_set)
    gate.open.set()
    await stopping
    assert (await server.get(item.item_id)).state is State.SUCCEEDED


async def test_a_worker_that_stops_hands_back_what_does_not_finish_within_the_grace(
    start_server: StartServer,
) -> None:
    gate = Gate()
    server = await start_server({"noop": gate}, NOTHING_BY_ITSELF)
    item = await server.submit(claim_here=True)
    await gate.begun.wait()
    assert server.worker is not None
    async with asyncio.timeout(LIMIT):
        await server.worker.stop(timedelta(milliseconds=100))
    item = await server.get(item.item_id)
    assert (item.state, item.attempt, item.errors) == (State.QUEUED, 0, [])


async def test_a_handler_hands_back_by_itself_when_the_server_stops(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        await run.stopping.wait()
        return Released()

    server = await start_server({"noop": handler}, QUICK)
    item = await server.submit(claim_here=True)
    assert server.worker is not None
    await server.worker.stop(timedelta(seconds=10))
    assert (await server.get(item.item_id)).state is State.QUEUED
    assert (await server.submit(claim_here=True)).state is State.QUEUED
