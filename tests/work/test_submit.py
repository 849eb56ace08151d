"""Submitting: idempotency, id conflicts, the bound, eager claims, wake-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists, NotFound, Reason, ResourceExhausted
from stationmaster_server.work import claim_store, store
from stationmaster_server.work.model import (
    NewWork,
    OnConflict,
    RateLimit,
    RetryPolicy,
    State,
    Strategy,
    Succeeded,
    Timeouts,
    WorkItem,
)
from stationmaster_server.work.worker import WorkerSettings

from tests.work.conftest import LIMIT, NOTHING_BY_ITSELF, Gate, Server, StartServer, eventually, noop


async def test_what_is_submitted_is_run(start_server: StartServer) -> None:
    server = await start_server({"noop": noop})
    item = await server.submit()
    item = await server.reaches(item.item_id, State.SUCCEEDED)
    assert (item.attempt, item.errors, item.finished_at is not None) == (1, [], True)


async def test_what_is_returned_is_what_is_stored(idle: Server) -> None:
    item = await idle.submit(payload={"text": "é\x00", "n": [1]}, run_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert item == await idle.get(item.item_id)


async def test_a_submission_that_is_rolled_back_is_never_run(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate})
    for claim_here in (False, True):
        with pytest.raises(ZeroDivisionError):
            await submit_and_fail(server, claim_here)
    await server.submit()
    await gate.begun.wait()
    assert len(gate.runs) == 1


async def submit_and_fail(server: Server, claim_here: bool) -> None:
    async with server.database.system() as tx:
        await server.queue.submit(tx, server.new(), claim_here=claim_here)
        raise ZeroDivisionError


async def test_the_local_worker_is_woken_without_waiting_for_its_poll(start_server: StartServer) -> None:
    server = await start_server({"noop": noop}, NOTHING_BY_ITSELF)
    item = await server.submit()
    await server.reaches(item.item_id, State.SUCCEEDED)


async def test_a_busy_server_wakes_another_ones_worker(start_server: StartServer) -> None:
    gate = Gate()
    busy = await start_server({"noop": gate}, WorkerSettings(slots=1, poll=timedelta(seconds=60)))
    await busy.submit()
    await gate.begun.wait()
    await start_server({"noop": noop}, NOTHING_BY_ITSELF, listens=True)
    item = await busy.submit()
    await busy.reaches(item.item_id, State.SUCCEEDED)
    gate.open.set()


async def test_an_eager_claim_begins_running_in_the_submitting_transaction(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate}, NOTHING_BY_ITSELF)
    async with server.database.system() as tx:
        item = await server.queue.submit(tx, server.new(), claim_here=True)
        assert (item.state, item.attempt) == (State.RUNNING, 1)
        assert not gate.runs
    await asyncio.wait_for(gate.begun.wait(), LIMIT)
    stored = await server.get(item.item_id)
    assert gate.runs[0].item == item
    assert (stored.state, stored.lease_token, stored.attempt) == (State.RUNNING, gate.runs[0].lease_token, 1)
    gate.open.set()
    await server.reaches(item.item_id, State.SUCCEEDED)


async def test_without_a_free_slot_or_a_handler_there_is_no_eager_claim(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate}, WorkerSettings(slots=1))
    assert (await server.submit("other", claim_here=True)).state is State.QUEUED
    assert (await server.submit(claim_here=True)).state is State.RUNNING
    assert (await server.submit(claim_here=True)).state is State.QUEUED
    gate.open.set()


async def test_a_delayed_item_is_not_run_before_its_time(start_server: StartServer) -> None:
    server = await start_server({"noop": noop})
    later = datetime.now(UTC) + timedelta(seconds=1)
    item = await server.submit(run_at=later, claim_here=True)
    item = await server.reaches(item.item_id, State.SUCCEEDED)
    assert item.started_at is not None
    assert item.started_at >= later


async def test_the_same_idempotency_key_gives_the_same_item(idle: Server) -> None:
    first = await idle.submit(idempotency_key="once")
    assert (await idle.submit(idempotency_key="once")).item_id == first.item_id
    assert (await idle.submit(idempotency_key="twice")).item_id != first.item_id


async def test_racing_submissions_of_one_idempotency_key_make_one_item(idle: Server) -> None:
    items = await asyncio.gather(*(idle.submit(idempotency_key="once") for _ in range(8)))
    assert len({item.item_id for item in items}) == 1


async def test_an_idempotency_key_ends_with_its_time_to_live(idle: Server) -> None:
    first = await idle.submit(idempotency_key="once", idempotency_ttl=timedelta(0))
    assert (await idle.submit(idempotency_key="once")).item_id != first.item_id


async def test_a_taken_id_fails_by_default(idle: Server) -> None:
    item = await idle.submit(item_id=new_id())
    with pytest.raises(AlreadyExists):
        await idle.submit(item_id=item.item_id)


async def test_a_taken_id_may_give_the_existing_item(idle: Server) -> None:
    item = await idle.submit(item_id=new_id(), payload={"n": 1})
    again = await idle.submit(item_id=item.item_id, payload={"n": 2}, on_conflict=OnConflict.USE_EXISTING)
    assert again.payload == {"n": 1}


async def test_a_taken_id_may_end_the_existing_item_whose_worker_loses_its_lease(start_server: StartServer) -> None:
    gate = Gate(Succeeded({"by": "old"}))
    server = await start_server({"noop": gate})
    old = await server.submit(item_id=new_id())
    await gate.begun.wait()
    new = await server.submit(item_id=old.item_id, payload={"n": 2}, on_conflict=OnConflict.TERMINATE_EXISTING)
    assert (new.item_id, new.attempt) == (old.item_id, 0)
    await eventually(lambda: gate.runs[0].lost)
    gate.open.set()
    item = await server.reaches(old.item_id, State.SUCCEEDED)
    assert item.payload == {"n": 2}
    assert gate.runs[-1].lease_token == item.lease_token != gate.runs[0].lease_token


async def test_a_full_queue_refuses_and_says_when_to_come_again(start_server: StartServer) -> None:
    server = await start_server(queue_limit=3)
    for _ in range(3):
        await server.submit()
    with pytest.raises(ResourceExhausted) as refusal:
        await server.submit()
    assert refusal.value.reason is Reason.QUEUE_FULL
    assert refusal.value.retry_after > timedelta(0)
    with pytest.raises(ResourceExhausted):
        await server.call(lambda tx, _: server.queue.submit_many(tx, [server.new()]))


async def test_a_full_queue_still_answers_with_what_it_holds(start_server: StartServer) -> None:
    server = await start_server(queue_limit=2)
    item = await server.submit(idempotency_key="once", concurrency_key="k")
    for _ in range(3):  # a repeat takes no room
        assert (await server.submit(idempotency_key="once")).item_id == item.item_id
    await server.submit()
    repeats = [server.new(idempotency_key="once"), server.new(idempotency_key="once", concurrency_key="k")]
    assert [one.item_id for one in await server.call(lambda tx, _: server.queue.submit_many(tx, repeats))] == [
        item.item_id
    ] * 2
    existing = await server.submit(item_id=item.item_id, on_conflict=OnConflict.USE_EXISTING)
    assert existing.item_id == item.item_id
    replaced = await server.submit(item_id=item.item_id, on_conflict=OnConflict.TERMINATE_EXISTING)
    assert replaced.item_id == item.item_id
    with pytest.raises(ResourceExhausted):
        await server.submit(idempotency_key="another")


async def test_a_queue_that_was_drained_takes_more_at_once(start_server: StartServer) -> None:
    server = await start_server(queue_limit=2)
    items = [await server.submit(), await server.submit()]
    await server.call(server.queue.cancel, items[0].item_id)
    await server.submit()


async def test_many_are_submitted_at_once_in_their_order(idle: Server) -> None:
    works = [idle.new(payload={"n": n}, concurrency_key="k" if n % 3 == 0 else None) for n in range(10)]
    async with idle.database.system() as tx:
        items = await idle.queue.submit_many(tx, works)
    assert [item.payload["n"] for item in items] == list(range(10))
    assert [item.state for item in items if item.concurrency_key] == [State.QUEUED] + [State.WAITING] * 3


async def test_an_item_that_does_not_exist_is_not_found(idle: Server) -> None:
    for method in (idle.queue.get, idle.queue.cancel, idle.queue.resume, idle.queue.pause, idle.queue.retry):
        with pytest.raises(NotFound):
            await idle.call(method, new_id())


async def test_a_tenant_submits_within_its_own_transaction(start_server: StartServer) -> None:
    server = await start_server({"noop": noop})
    async with server.database.tenant(server.tenant) as tx:
        tx.audited = True
        item = await server.queue.submit(tx, server.new(concurrency_key="k", idempotency_key="i"), claim_here=True)
    await server.reaches(item.item_id, State.SUCCEEDED)


async def test_what_this_server_does_not_handle_wakes_another(start_server: StartServer) -> None:
    here = await start_server({"other": noop}, NOTHING_BY_ITSELF)
    await start_server({"noop": noop}, NOTHING_BY_ITSELF, listens=True)
    await here.reaches((await here.submit()).item_id, State.SUCCEEDED)


async def test_lanes_and_keys_that_nobody_uses_are_forgotten_and_come_back(start_server: StartServer) -> None:
    server = await start_server({"noop": noop})
    queued = await server.submit("unhandled", concurrency_key="kept", user_id=new_id())
    await server.reaches((await server.submit(concurrency_key="gone")).item_id, State.SUCCEEDED)
    async with server.database.system() as tx:
        for table in ("work_lanes", "work_keys"):
            await tx.execute(f"UPDATE {table} SET used_at = now() - interval '1 hour'")
        await claim_store.forget_unused(tx)
        assert await tx.fetchval("SELECT array_agg(user_id) FROM work_lanes") == [queued.user_id]
        assert await tx.fetchval("SELECT array_agg(concurrency_key) FROM work_keys") == ["kept"]
    await server.reaches((await server.submit(concurrency_key="gone")).item_id, State.SUCCEEDED)


async def test_submissions_that_are_under_way_do_not_get_the_same_slot(start_server: StartServer) -> None:
    server = await start_server({"noop": Gate()}, replace(NOTHING_BY_ITSELF, slots=1))
    await server.submit("other")  # the lane is there: neither waits for the other to make it
    async with server.database.system() as tx, server.database.system() as other:
        first = await server.queue.submit(tx, server.new(), claim_here=True)
        second = await server.queue.submit(other, server.new(), claim_here=True)
    assert [first.state, second.state] == [State.RUNNING, State.QUEUED]


async def test_a_slot_that_was_promised_and_not_used_is_free_again(start_server: StartServer) -> None:
    server = await start_server({"noop": Gate()}, replace(NOTHING_BY_ITSELF, slots=1))
    existing = await server.submit(idempotency_key="i", run_at=datetime.now(UTC) + timedelta(hours=1))
    again = await server.submit(idempotency_key="i", claim_here=True)
    assert (again.item_id, again.state) == (existing.item_id, State.QUEUED)
    with pytest.raises(ZeroDivisionError):
        await submit_and_fail(server, True)
    worker = server.worker
    assert worker is not None
    await eventually(lambda: worker._free() == 1)
    assert (await server.submit(claim_here=True)).state is State.RUNNING


async def test_alike_items_are_one_statement_though_each_has_policies_of_its_own(
    idle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    insert = store.insert

    async def counted(tx: Transaction, like: NewWork, rows: Sequence[store.Row], *rest: Any) -> dict[UUID, WorkItem]:
        sizes.append(len(rows))
        return await insert(tx, like, rows, *rest)

    monkeypatch.setattr(store, "insert", counted)

    def new(attempts: int) -> NewWork:
        timeouts = Timeouts(start_to_close=timedelta(hours=1))
        rate = RateLimit("k", 10, timedelta(seconds=1))
        return idle.new(retry=RetryPolicy(attempts=attempts), timeouts=timeouts, rate=rate)

    async with idle.database.system() as tx:
        await idle.queue.submit_many(tx, [new(5) for _ in range(7)] + [new(4) for _ in range(2)])
    assert sizes == [7, 2]
    sizes.clear()
    keyed = [idle.new(concurrency_key="k", max_running=3) for _ in range(20)]
    limited = [replace(work, strategy=Strategy.CANCEL_NEWEST) for work in keyed[:5]]
    async with idle.database.system() as tx:
        items = await idle.queue.submit_many(tx, keyed + limited)
    assert sizes == [3, 17, 5]
    assert [item.state for item in items] == [State.QUEUED] * 3 + [State.WAITING] * 17 + [State.CANCELLED] * 5
