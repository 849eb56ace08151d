"""Concurrency keys: max_running and the three strategies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stationmaster_server.work import key_store
from stationmaster_server.work.key_store import Key
from stationmaster_server.work.model import Cancelled, Outcome, Priority, State, Strategy, Succeeded, WorkItem
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import WorkerSettings

from tests.work.conftest import Gate, Server, StartServer, eventually


async def states(server: Server, items: list[WorkItem]) -> list[State]:
    return [(await server.get(item.item_id)).state for item in items]


async def test_no_more_than_max_running_of_a_key_hold_a_slot(idle: Server) -> None:
    items = [await idle.submit(concurrency_key="k", max_running=2) for _ in range(4)]
    assert [item.state for item in items] == [State.QUEUED, State.QUEUED, State.WAITING, State.WAITING]
    await idle.call(idle.queue.cancel, items[0].item_id)
    assert await states(idle, items) == [State.CANCELLED, State.QUEUED, State.QUEUED, State.WAITING]


async def test_keys_of_two_organizations_have_nothing_to_do_with_each_other(idle: Server) -> None:
    await idle.submit(concurrency_key="k")
    assert (await idle.submit(concurrency_key="k", organization_id=idle.tenant.user_id)).state is State.QUEUED


@pytest.mark.parametrize("limit", [1, 3])
async def test_handlers_of_a_key_never_overlap_more_than_max_running(start_server: StartServer, limit: int) -> None:
    running: dict[str, int] = {}
    most: dict[str, int] = {}

    async def handler(run: Run) -> Outcome:
        key = run.item.concurrency_key or ""
        running[key] = running.get(key, 0) + 1
        most[key] = max(most.get(key, 0), running[key])
        await asyncio.sleep(0.005)
        running[key] -= 1
        return Succeeded()

    servers = [await start_server({"noop": handler}, listens=True) for _ in range(2)]
    items = await asyncio.gather(
        *(servers[n % 2].submit(concurrency_key=f"k{n % 3}", max_running=limit) for n in range(45))
    )
    for item in items:
        await servers[0].reaches(item.item_id, State.SUCCEEDED)
    assert max(most.values()) <= limit


async def test_the_items_of_a_session_run_in_the_order_of_their_submission(start_server: StartServer) -> None:
    order: list[int] = []

    async def handler(run: Run) -> Outcome:
        order.append(run.item.payload["n"])
        return Succeeded()

    server = await start_server({"noop": handler})
    items = [await server.submit(concurrency_key="session", payload={"n": n}, claim_here=True) for n in range(10)]
    for item in items:
        await server.reaches(item.item_id, State.SUCCEEDED)
    assert order == list(range(10))


async def test_keys_take_turns(start_server: StartServer) -> None:
    order: list[str] = []

    async def handler(run: Run) -> Outcome:
        order.append(run.item.concurrency_key or "")
        return Succeeded()

    gate = Gate()
    server = await start_server({"noop": handler, "gate": gate}, WorkerSettings(slots=1))
    blocker = await server.submit("gate", priority=Priority.URGENT)
    await gate.begun.wait()
    items = [await server.submit(concurrency_key="long") for _ in range(4)]
    items += [await server.submit(concurrency_key="short") for _ in range(2)]
    gate.open.set()
    for item in [blocker, *items]:
        await server.reaches(item.item_id, State.SUCCEEDED)
    assert order == ["long", "short", "long", "short", "long", "long"]


async def test_of_those_with_different_limits_each_waits_for_all_before_it(idle: Server) -> None:
    items = [await idle.submit(concurrency_key="k", max_running=limit) for limit in (3, 3, 3, 1, 3)]
    await idle.call(idle.queue.cancel, items[0].item_id)
    waiting = [State.WAITING, State.WAITING]
    assert await states(idle, items) == [State.CANCELLED, State.QUEUED, State.QUEUED, *waiting]
    async with idle.database.system() as tx:
        assert await key_store.with_unused_slots(tx) == []
    await idle.call(idle.queue.cancel, items[1].item_id)
    assert await states(idle, items) == [State.CANCELLED, State.CANCELLED, State.QUEUED, State.WAITING, State.QUEUED]


async def test_cancel_newest_cancels_what_finds_no_slot(idle: Server) -> None:
    options: dict[str, Any] = {"concurrency_key": "k", "strategy": Strategy.CANCEL_NEWEST}
    first, second = await idle.submit(**options), await idle.submit(**options)
    assert (first.state, second.state, second.reason) == (State.QUEUED, State.CANCELLED, "CONCURRENCY_LIMIT")
    assert second == await idle.get(second.item_id)


async def test_cancel_running_cancels_the_oldest_to_make_room(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        began.append(run)
        await (run.cancelled.wait() if len(began) == 1 else asyncio.sleep(0))
        return Cancelled() if run.cancelled.is_set() else Succeeded()

    began: list[Run] = []
    server = await start_server({"noop": handler})
    options: dict[str, Any] = {"concurrency_key": "k", "strategy": Strategy.CANCEL_RUNNING}
    first = await server.submit(**options)
    await eventually(lambda: bool(began))
    second = await server.submit(**options)
    assert second.state is State.WAITING
    await server.reaches(first.item_id, State.CANCELLED)
    await server.reaches(second.item_id, State.SUCCEEDED)


async def test_cancel_running_leaves_only_the_newest_of_those_that_wait(idle: Server) -> None:
    options: dict[str, Any] = {"concurrency_key": "k", "strategy": Strategy.CANCEL_RUNNING}
    items = [await idle.submit(**options) for _ in range(4)]
    assert await states(idle, items) == [State.CANCELLED] * 3 + [State.QUEUED]


async def test_cancel_running_leaves_only_the_newest_of_those_that_are_held_back(idle: Server) -> None:
    options: dict[str, Any] = {"concurrency_key": "k", "strategy": Strategy.CANCEL_RUNNING}
    items = [await idle.submit(**options), *[await idle.submit(**options, paused=True) for _ in range(3)]]
    assert await states(idle, items) == [State.CANCELLED] * 3 + [State.WAITING]
    await idle.call(idle.queue.unpause, items[-1].item_id)
    assert await states(idle, items[-1:]) == [State.QUEUED]


async def test_cancel_running_gives_the_slots_that_it_frees_to_those_that_it_leaves(idle: Server) -> None:
    items = [await idle.submit(concurrency_key="k", max_running=2) for _ in range(3)]
    items.append(await idle.submit(concurrency_key="k", max_running=2, strategy=Strategy.CANCEL_RUNNING))
    assert await states(idle, items) == [State.CANCELLED, State.CANCELLED, State.QUEUED, State.QUEUED]


async def test_a_repeated_submission_cancels_nobody(idle: Server) -> None:
    options: dict[str, Any] = {"concurrency_key": "k", "strategy": Strategy.CANCEL_RUNNING, "idempotency_key": "once"}
    first = await idle.submit(**options)
    assert (await idle.submit(**options)).item_id == first.item_id
    assert await states(idle, [first]) == [State.QUEUED]


async def test_racing_submissions_of_a_key_let_only_one_in(idle: Server) -> None:
    items = await asyncio.gather(*(idle.submit(concurrency_key="k") for _ in range(8)))
    assert sorted(item.state for item in items) == [State.QUEUED] + [State.WAITING] * 7


async def test_a_slot_that_was_left_unused_is_given_by_the_reaper(start_server: StartServer) -> None:
    idle = await start_server()
    first, second = await idle.submit(concurrency_key="k"), await idle.submit(concurrency_key="k")
    async with idle.database.system() as tx:
        await tx.execute("UPDATE work_items SET state = 'CANCELLED' WHERE item_id = $1", first.item_id)
        assert await key_store.with_unused_slots(tx) == [Key(idle.tenant.organization_id, "k")]
    server = await start_server({"noop": Gate()})
    await server.reaches(second.item_id, State.RUNNING)


async def test_slots_are_given_to_who_waits_and_to_nobody_of_the_same_id_elsewhere(idle: Server) -> None:
    """Ids are of an organization: a copied one may have them, too."""
    other = idle.tenant.user_id
    waiting = {}
    async with idle.database.system() as tx:
        for organization_id in (idle.tenant.organization_id, other):
            new = [idle.new(concurrency_key="k", organization_id=organization_id) for _ in range(2)]
            waiting[organization_id] = (await idle.queue.submit_many(tx, new))[1]
        await tx.execute(
            "INSERT INTO work_items SELECT (r).* FROM (SELECT jsonb_populate_record(i, jsonb_build_object("
            "'organization_id', $1::uuid, 'state', 'CANCELLED', 'finished_at', now())) AS r"
            " FROM work_items i WHERE i.item_id = $2) copy",
            other,
            waiting[idle.tenant.organization_id].item_id,
        )
        await tx.execute("UPDATE work_items SET state = 'CANCELLED' WHERE state = 'QUEUED'")
        keys = [Key(organization_id, "k") for organization_id in waiting]
        assert await key_store.admit(tx, keys) == 2
        ended = await tx.fetchval(
            "SELECT state FROM work_items WHERE organization_id = $1 AND item_id = $2",
            other,
            waiting[idle.tenant.organization_id].item_id,
        )
    assert ended == "CANCELLED"
