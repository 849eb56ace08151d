"""Who is claimed first: priority with ageing, fairness, age; rates."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from stationmaster_server.db.ids import new_id
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.work import claim_store, store
from stationmaster_server.work.model import (
    FINAL,
    Outcome,
    Priority,
    RateLimit,
    RetryPolicy,
    State,
    Succeeded,
    Timeouts,
    WorkItem,
)
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import WorkerSettings

from tests.work.conftest import LIMIT, NOTHING_BY_ITSELF, QUICK, Server, StartServer, noop

LEASE = timedelta(seconds=15)
NO_AGEING = timedelta(days=365)


async def claim(server: Server, limit: int = 100, ageing: timedelta = NO_AGEING, kind: str = "noop") -> list[WorkItem]:
    async with server.database.system(autocommit=True) as tx:
        return await claim_store.claim(tx, [kind], limit, ageing, "test", LEASE)


async def names_one_by_one(server: Server, count: int, ageing: timedelta = NO_AGEING) -> list[str]:
    """The payloads' names in the order in which one slot gets them."""
    names = []
    for _ in range(count):
        (item,) = await claim(server, 1, ageing)
        names.append(item.payload["name"])
    return names


async def named(server: Server, name: str, **fields: Any) -> WorkItem:
    return await server.submit(payload={"name": name}, **fields)


async def backdate(server: Server, item: WorkItem, age: timedelta) -> None:
    async with server.database.system() as tx:
        await tx.execute("UPDATE work_items SET run_at = run_at - $2::interval WHERE item_id = $1", item.item_id, age)


async def test_the_lower_priority_number_goes_first(idle: Server) -> None:
    for priority in (Priority.IDLE, Priority.NORMAL, Priority.URGENT, Priority.HIGH, Priority.LOW):
        await named(idle, priority.name, priority=priority)
    assert await names_one_by_one(idle, 5) == ["URGENT", "HIGH", "NORMAL", "LOW", "IDLE"]


async def test_of_one_owner_and_priority_the_oldest_goes_first(idle: Server) -> None:
    for name in "abcd":
        await named(idle, name)
    assert await names_one_by_one(idle, 4) == list("abcd")


async def test_waiting_raises_until_even_the_idle_overtake_the_urgent(idle: Server) -> None:
    waiting = await named(idle, "idle", priority=Priority.IDLE)
    await backdate(idle, waiting, timedelta(minutes=6))
    for _ in range(3):
        await named(idle, "urgent", priority=Priority.URGENT)
    assert (await names_one_by_one(idle, 1, ageing=timedelta(minutes=2))) == ["urgent"]
    assert (await names_one_by_one(idle, 1, ageing=timedelta(minutes=1))) == ["idle"]


async def test_nothing_starves_behind_a_stream_of_urgent_work(idle: Server) -> None:
    await named(idle, "idle", priority=Priority.IDLE)
    async with asyncio.timeout(LIMIT):
        while True:
            await named(idle, "urgent", priority=Priority.URGENT)
            if await names_one_by_one(idle, 1, ageing=timedelta(milliseconds=50)) == ["idle"]:
                return


async def test_owners_take_turns_whoever_came_first(idle: Server) -> None:
    for _ in range(6):
        await named(idle, "first")
    other = new_id()
    for _ in range(3):
        await named(idle, "second", user_id=other)
    assert await names_one_by_one(idle, 6) == ["first", "second"] * 3


async def test_a_claim_of_many_is_shared_among_owners(idle: Server) -> None:
    for _ in range(50):
        await named(idle, "many")
    for number in range(5):
        await named(idle, f"few{number}", user_id=new_id())
    names = [item.payload["name"] for item in await claim(idle, 10)]
    assert sorted(names) == sorted(["few0", "few1", "few2", "few3", "few4"] + ["many"] * 5)


async def test_an_old_backlog_does_not_outrun_a_new_owner_by_its_age(idle: Server) -> None:
    for _ in range(10):
        await backdate(idle, await named(idle, "backlog"), timedelta(hours=5))
    await names_one_by_one(idle, 1, ageing=timedelta(minutes=1))
    await named(idle, "new", user_id=new_id())
    assert await names_one_by_one(idle, 1, ageing=timedelta(minutes=1)) == ["new"]


async def test_only_kinds_that_are_handled_are_claimed(idle: Server) -> None:
    await named(idle, "other", kind="other")
    assert await claim(idle) == []
    assert len(await claim(idle, kind="other")) == 1


async def test_claims_at_the_same_time_never_share_an_item_and_leave_none(idle: Server) -> None:
    async with idle.database.system() as tx:
        await idle.queue.submit_many(tx, [idle.new() for _ in range(200)])
    claimed: list[WorkItem] = []

    async def drain() -> None:
        while items := await claim(idle, 7):
            claimed.extend(items)

    await asyncio.gather(*(drain() for _ in range(6)))
    assert len({item.item_id for item in claimed}) == len(claimed) == 200
    assert len({item.lease_token for item in claimed}) == 200


async def test_a_paused_item_is_not_claimed_until_it_is_let_go(idle: Server) -> None:
    item = await idle.submit()
    await idle.call(idle.queue.pause, item.item_id)
    assert await claim(idle) == []
    await idle.call(idle.queue.unpause, item.item_id)
    assert len(await claim(idle)) == 1


async def test_items_of_one_rate_key_start_no_closer_than_their_rate_allows(start_server: StartServer) -> None:
    server = await start_server({"noop": noop})
    rate = RateLimit("api", limit=5, per=timedelta(seconds=1))
    items = [await server.submit(rate=rate) for _ in range(5)]
    free = await server.submit(rate=RateLimit("other", limit=1, per=timedelta(hours=1)))
    await server.reaches(free.item_id, State.SUCCEEDED)
    for item in items:
        assert (await server.reaches(item.item_id, State.SUCCEEDED)).attempt == 1
    stored = sorted([(await server.get(item.item_id)).started_at for item in items], key=lambda at: at or EPOCH)
    gaps = [(after - before).total_seconds() for before, after in pairwise(stored)]  # type: ignore[operator]
    assert sum(gaps) >= 0.75
    assert min(gaps) > 0.1


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def test_what_its_rate_holds_back_is_not_started_and_is_dead_when_its_time_to_start_is_up(
    start_server: StartServer,
) -> None:
    server = await start_server({"noop": noop})
    hourly = RateLimit("api", limit=1, per=timedelta(hours=1))
    started = await server.submit(rate=hourly)
    await server.reaches(started.item_id, State.SUCCEEDED)
    in_time = Timeouts(schedule_to_start=timedelta(milliseconds=500))
    held_back = await server.submit(rate=hourly, timeouts=in_time)
    item = await server.reaches(held_back.item_id, State.DEAD)
    assert (item.reason, item.attempt, item.started_at, item.errors) == ("SCHEDULE_TO_START", 0, None, [])


async def test_the_queue_tells_what_it_holds(idle: Server) -> None:
    await idle.submit()
    await idle.submit(concurrency_key="k")
    await idle.submit(concurrency_key="k")
    stats = await idle.call(store.stats)
    assert [(each.kind, each.state, each.count) for each in stats] == [
        ("noop", State.QUEUED, 2),
        ("noop", State.WAITING, 1),
    ]


async def test_every_item_is_run_once_by_two_workers(start_server: StartServer) -> None:
    seen: list[Any] = []

    async def handler(run: Run) -> Outcome:
        seen.append(run.item.item_id)
        return Succeeded()

    servers = [await start_server({"noop": handler}, listens=True) for _ in range(2)]
    items = await servers[0].call(
        lambda tx, _: servers[0].queue.submit_many(tx, [servers[0].new() for _ in range(300)])
    )
    for item in items:
        await servers[0].reaches(item.item_id, State.SUCCEEDED)
    assert sorted(seen) == sorted(item.item_id for item in items)


async def test_a_worker_never_runs_more_than_its_slots(start_server: StartServer) -> None:
    running, most = 0, 0

    async def handler(run: Run) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return Succeeded()

    server = await start_server({"noop": handler}, WorkerSettings(slots=3, poll=timedelta(milliseconds=50)))
    items = [await server.submit() for _ in range(20)]
    for item in items:
        await server.reaches(item.item_id, State.SUCCEEDED)
    assert most == 3


async def test_what_was_claimed_runs_though_its_rate_cannot_be_looked_at(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "the database is away")

    monkeypatch.setattr(claim_store, "throttle", away)
    server = await start_server({"noop": noop}, NOTHING_BY_ITSELF)
    once = RetryPolicy(attempts=1)
    limited = await server.submit(rate=RateLimit("api", limit=1, per=timedelta(hours=1)), retry=once)
    free = await server.submit(retry=once)
    for item in (limited, free):
        assert (await server.reaches(item.item_id, *FINAL)).state is State.SUCCEEDED


async def test_what_was_held_back_and_died_of_waiting_runs_when_it_is_retried(start_server: StartServer) -> None:
    server = await start_server({"noop": noop}, QUICK)
    in_time = Timeouts(schedule_to_start=timedelta(milliseconds=50))
    item = await server.submit(paused=True, timeouts=in_time)
    await server.reaches(item.item_id, State.DEAD)
    await server.call(server.queue.retry, item.item_id)
    assert (await server.reaches(item.item_id, *FINAL)).state is State.SUCCEEDED
