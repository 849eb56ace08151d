"""Items of concurrency keys that are to run later: they take no slot before their time, and are dealt with then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from stationmaster_server.work.model import NewWork, Outcome, State, Strategy, Succeeded, WorkItem
from stationmaster_server.work.reaper import Reaper
from stationmaster_server.work.run import Run

from tests.work.conftest import Server, StartServer
from tests.work.test_held_keys import held

DAY = timedelta(days=1)


def tomorrow() -> datetime:
    return datetime.now(UTC) + DAY


async def its_time_comes(server: Server, item: WorkItem) -> None:
    """Now rather than tomorrow."""
    async with server.database.system() as tx:
        await tx.execute("UPDATE work_items SET run_at = now() WHERE item_id = $1", item.item_id)


async def look(server: Server) -> None:
    """What the reaper does each half second."""
    await Reaper(server.database, lambda: None, DAY, DAY).let_in()


async def states(server: Server, *items: WorkItem) -> list[State]:
    return [(await server.get(item.item_id)).state for item in items]


async def test_what_is_to_run_later_takes_no_slot_before_its_time(idle: Server) -> None:
    later = await idle.submit(concurrency_key="k", run_at=tomorrow())
    first = await idle.submit(concurrency_key="k")
    second = await idle.submit(concurrency_key="k")
    await look(idle)
    assert await states(idle, later, first, second) == [State.WAITING, State.QUEUED, State.WAITING]
    await idle.call(idle.queue.cancel, first.item_id)
    assert await states(idle, later, second) == [State.WAITING, State.QUEUED]


@pytest.mark.parametrize("together", [True, False])
async def test_when_its_time_comes_it_waits_behind_those_that_came_before(idle: Server, together: bool) -> None:
    works = [idle.new(concurrency_key="k", run_at=at) for at in (tomorrow(), None, None)]
    later, first, second = await submit(idle, works, together)
    await its_time_comes(idle, later)
    await look(idle)
    third = await idle.submit(concurrency_key="k")
    for ends, begins in ((first, second), (second, later), (later, third)):
        await idle.call(idle.queue.cancel, ends.item_id)
        assert await states(idle, begins) == [State.QUEUED]


async def submit(server: Server, works: list[NewWork], together: bool) -> list[WorkItem]:
    """In one call, or in one each."""
    if together:
        async with server.database.system() as tx:
            return await server.queue.submit_many(tx, works)
    items = []
    for work in works:
        async with server.database.system() as tx:
            items.append(await server.queue.submit(tx, work))
    return items


async def test_cancel_newest_decides_when_the_time_has_come(idle: Server) -> None:
    options: dict[str, Any] = {"concurrency_key": "k", "strategy": Strategy.CANCEL_NEWEST}
    late, later = [await idle.submit(**options, run_at=tomorrow()) for _ in range(2)]
    running = await idle.submit(**options)
    assert await states(idle, late, later, running) == [State.WAITING, State.WAITING, State.QUEUED]
    await its_time_comes(idle, late)
    await look(idle)
    assert await states(idle, late, later, running) == [State.CANCELLED, State.WAITING, State.QUEUED]
    assert (await idle.get(late.item_id)).reason == "CONCURRENCY_LIMIT"
    await idle.call(idle.queue.cancel, running.item_id)
    await its_time_comes(idle, later)
    await look(idle)
    assert await states(idle, later) == [State.QUEUED]


async def test_cancel_running_cancels_when_the_time_has_come(idle: Server) -> None:
    options: dict[str, Any] = {"concurrency_key": "k", "strategy": Strategy.CANCEL_RUNNING}
    running = await idle.submit(**options)
    later = await idle.submit(**options, run_at=tomorrow())
    assert await states(idle, running, later) == [State.QUEUED, State.WAITING]
    newer = await idle.submit(**options)
    assert await states(idle, running, newer, later) == [State.CANCELLED, State.QUEUED, State.WAITING]
    await its_time_comes(idle, later)
    await look(idle)
    assert await states(idle, newer, later) == [State.CANCELLED, State.QUEUED]


async def test_what_is_held_back_is_let_in_when_it_is_let_go_after_its_time(idle: Server) -> None:
    later = await idle.submit(concurrency_key="k", run_at=tomorrow(), paused=True)
    await its_time_comes(idle, later)
    await look(idle)
    await idle.call(idle.queue.unpause, later.item_id)
    await look(idle)
    assert await states(idle, later) == [State.QUEUED]


async def test_a_server_lets_in_what_is_due_by_itself(start_server: StartServer) -> None:
    async def noop(run: Run) -> Outcome:
        return Succeeded()

    server = await start_server({"noop": noop})
    due = datetime.now(UTC) + timedelta(milliseconds=300)
    items = [await server.submit(concurrency_key="k", run_at=due) for _ in range(3)]
    for item in items:
        done = await server.reaches(item.item_id, State.SUCCEEDED)
        assert done.started_at is not None
        assert done.started_at >= due


async def test_those_of_other_keys_are_let_in_while_one_is_held(idle: Server) -> None:
    stuck, free = [await idle.submit(concurrency_key=key, run_at=tomorrow()) for key in ("held", "free")]
    await its_time_comes(idle, stuck)
    await its_time_comes(idle, free)
    async with held(idle, "held"):
        await look(idle)
        assert await states(idle, stuck, free) == [State.WAITING, State.QUEUED]
    await look(idle)
    assert await states(idle, stuck) == [State.QUEUED]


async def test_a_time_that_is_past_is_now(idle: Server) -> None:
    before = await idle.submit()
    late = await idle.submit(run_at=datetime(1980, 1, 1, tzinfo=UTC))
    assert before.run_at <= late.run_at <= datetime.now(UTC) + timedelta(hours=1)


async def test_who_came_by_its_time_is_as_new_as_then(idle: Server) -> None:
    options: dict[str, Any] = {"concurrency_key": "k", "max_running": 2, "strategy": Strategy.CANCEL_RUNNING}
    later = await idle.submit(**options, run_at=tomorrow())
    old = await idle.submit(**options)
    await its_time_comes(idle, later)
    await look(idle)
    newest = await idle.submit(**options)
    assert await states(idle, old, later, newest) == [State.CANCELLED, State.QUEUED, State.QUEUED]
