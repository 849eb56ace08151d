"""Attempts that fail or take too long: retried, or dead, with every error kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from stationmaster_server.errors import Aborted, Reason, Unavailable
from stationmaster_server.work import claim_store, follow_up_store, store
from stationmaster_server.work.model import (
    Failed,
    Outcome,
    RetryPolicy,
    State,
    Succeeded,
    Timeouts,
)
from stationmaster_server.work.reaper import Reaper
from stationmaster_server.work.run import Run

from tests.work.conftest import LIMIT, Gate, Server, StartServer, eventually

AT_ONCE = RetryPolicy(initial=timedelta(0))


async def test_a_failure_is_retried_and_every_attempts_error_is_kept(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        if run.attempt == 1:
            raise ValueError("bad")
        if run.attempt == 2:
            raise Unavailable(Reason.MODEL_UNAVAILABLE, "away", retry_after=timedelta(0))
        return Failed("third", reason="OWN")

    server = await start_server({"noop": handler})
    item = await server.submit(retry=AT_ONCE)
    item = await server.reaches(item.item_id, State.DEAD)
    assert item.reason == "ATTEMPTS_EXHAUSTED"
    assert [(each["attempt"], each["error"], each["reason"]) for each in item.errors] == [
        (1, "ValueError: bad", "ValueError"),
        (2, "Unavailable: away", "MODEL_UNAVAILABLE"),
        (3, "third", "OWN"),
    ]
    assert all(each["at"] and each["worker"] for each in item.errors)


async def test_a_retry_waits_for_its_delay(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        return Failed("once") if run.attempt == 1 else Succeeded()

    server = await start_server({"noop": handler})
    policy = RetryPolicy(initial=timedelta(milliseconds=400), jitter=0.0)
    item = await server.submit(retry=policy)
    item = await server.reaches(item.item_id, State.SUCCEEDED)
    assert item.finished_at is not None
    assert item.finished_at - datetime.fromisoformat(item.errors[0]["at"]) >= policy.initial


async def test_dead_items_are_listed_and_retried_singly_or_together(start_server: StartServer) -> None:
    broken = True

    async def handler(run: Run) -> Outcome:
        return Failed("broken", retryable=False) if broken else Succeeded()

    server = await start_server({"a": handler, "b": handler})
    items = [await server.submit(kind) for kind in ("a", "a", "b", "b", "b")]
    for item in items:
        await server.reaches(item.item_id, State.DEAD)
    dead = await server.call(store.list_dead, limit=3)
    last = (dead[-1].finished_at, dead[-1].item_id)
    dead += await server.call(store.list_dead, after=last)
    assert {item.item_id for item in dead} == {item.item_id for item in items}
    assert all(item.errors[0]["error"] == "broken" for item in dead)
    broken = False
    await server.call(server.queue.retry, items[0].item_id)
    await server.reaches(items[0].item_id, State.SUCCEEDED)
    of_b = [item.item_id for item in await server.call(store.list_dead, "b")]
    assert sorted(await server.call(server.queue.retry_many, of_b)) == sorted(of_b)
    assert len(of_b) == 3
    for item in items[2:]:
        await server.reaches(item.item_id, State.SUCCEEDED)
    assert [item.item_id for item in await server.call(store.list_dead)] == [items[1].item_id]


async def test_those_that_are_retried_together_are_claimed_in_the_order_given(idle: Server) -> None:
    ids = [(await idle.submit()).item_id for _ in range(6)]
    async with idle.database.system() as tx:
        await tx.execute("UPDATE work_items SET state = 'DEAD', finished_at = now()")
    given = [ids[place] for place in (3, 0, 5, 1, 4, 2)]
    await idle.call(idle.queue.retry_many, given)
    claimed = []
    for _ in ids:
        async with idle.database.system() as tx:
            claimed += await claim_store.claim(tx, ["noop"], 1, timedelta(hours=1), "there", timedelta(minutes=1))
    assert [item.item_id for item in claimed] == given


async def test_a_dead_item_is_not_retried_before_its_end_was_followed_up(idle: Server) -> None:
    item = await idle.submit(follow_up=True)
    async with idle.database.system() as tx:
        await tx.execute("UPDATE work_items SET state = 'DEAD', finished_at = now()")
    with pytest.raises(Aborted, match="is being dealt with"):
        await idle.call(idle.queue.retry, item.item_id)
    assert await idle.call(idle.queue.retry_many, [item.item_id]) == []
    async with idle.database.system() as tx:
        assert await follow_up_store.look(tx, ["noop"], 10) == {item.organization_id: [item.item_id]}
        await follow_up_store.done(tx, await follow_up_store.lock(tx, item.organization_id, [item.item_id]))
    assert (await idle.call(idle.queue.retry, item.item_id)).state is State.QUEUED


async def test_an_item_that_is_not_started_in_time_is_dead(start_server: StartServer) -> None:
    server = await start_server({"other": Gate()})
    item = await server.submit(timeouts=Timeouts(schedule_to_start=timedelta(milliseconds=50)))
    assert (await server.reaches(item.item_id, State.DEAD)).reason == "SCHEDULE_TO_START"


async def test_an_item_that_is_not_done_in_time_is_dead_and_its_worker_loses_the_lease(
    start_server: StartServer,
) -> None:
    gate = Gate()
    server = await start_server({"noop": gate})
    item = await server.submit(claim_here=True, timeouts=Timeouts(schedule_to_close=timedelta(milliseconds=300)))
    assert (await server.reaches(item.item_id, State.DEAD)).reason == "SCHEDULE_TO_CLOSE"
    await eventually(lambda: gate.runs[0].lost)


async def test_a_dead_item_that_is_retried_has_its_whole_time_again_and_no_more(idle: Server) -> None:
    limit = timedelta(hours=1)
    item = await idle.submit(timeouts=Timeouts(schedule_to_close=limit))
    reaper = Reaper(idle.database, lambda: None, timedelta(days=1), timedelta(days=1))
    columns = ("created_at", "run_at", "close_deadline")
    later = ", ".join(f"{column} = {column} - interval '1 day'" for column in columns)
    for _ in range(3):
        async with idle.database.system() as tx:
            await tx.execute(f"UPDATE work_items SET {later}")
        await reaper.reap()
        assert (await idle.get(item.item_id)).reason == "SCHEDULE_TO_CLOSE"
        await idle.call(idle.queue.retry, item.item_id)
        async with idle.database.system() as tx:
            left = await tx.fetchval("SELECT close_deadline - now() FROM work_items")
        assert limit - timedelta(minutes=10) < left <= limit


@pytest.mark.parametrize("by", ["the worker", "the reaper"])
async def test_an_attempt_that_takes_too_long_fails_and_is_retried(start_server: StartServer, by: str) -> None:
    async def stubborn(run: Run) -> Outcome:
        while True:
            try:
                await asyncio.sleep(LIMIT)
            except asyncio.CancelledError:
                if by == "the worker" or run.lost or run.stopping.is_set():
                    raise

    server = await start_server({"noop": stubborn})
    item = await server.submit(
        timeouts=Timeouts(start_to_close=timedelta(milliseconds=300)),
        retry=RetryPolicy(attempts=2, initial=timedelta(0)),
    )
    item = await server.reaches(item.item_id, State.DEAD)
    assert [error["reason"] for error in item.errors] == ["START_TO_CLOSE"] * 2


async def test_a_handler_that_gives_no_sign_of_life_fails(start_server: StartServer) -> None:
    async def lively(run: Run) -> Outcome:
        while not still_is_dead.is_set():
            run.heartbeat()
            await asyncio.sleep(0.05)
        return Succeeded()

    still_is_dead = asyncio.Event()
    server = await start_server({"lively": lively, "still": Gate()})
    alive = await server.submit("lively", claim_here=True, timeouts=Timeouts(heartbeat=timedelta(hours=1)))
    silent = Timeouts(heartbeat=timedelta(milliseconds=500))
    still = await server.submit("still", timeouts=silent, retry=RetryPolicy(attempts=1))
    before = await heartbeat_deadline(server, alive.item_id)
    assert (await server.reaches(still.item_id, State.DEAD)).errors[0]["reason"] == "HEARTBEAT"
    async with asyncio.timeout(LIMIT):
        while await heartbeat_deadline(server, alive.item_id) == before:  # noqa: ASYNC110 - it is in the database
            await asyncio.sleep(0.01)
    still_is_dead.set()
    assert (await server.reaches(alive.item_id, State.SUCCEEDED)).attempt == 1


async def heartbeat_deadline(server: Server, item_id: UUID) -> datetime:
    async with server.database.system(autocommit=True) as tx:
        at: datetime = await tx.fetchval("SELECT heartbeat_deadline FROM work_items WHERE item_id = $1", item_id)
    return at


async def test_a_handler_that_is_cancelled_by_its_own_library_has_failed(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        raise asyncio.CancelledError

    server = await start_server({"noop": handler})
    item = await server.submit(retry=replace(AT_ONCE, attempts=2))
    item = await server.reaches(item.item_id, State.DEAD)
    assert [error["reason"] for error in item.errors] == ["CANCELLED_ITSELF"] * 2


async def test_an_item_has_the_start_of_its_first_attempt_until_it_is_queued_by_hand(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        begun.append(run.item.started_at)
        return Failed("again")

    begun: list[datetime | None] = []
    server = await start_server({"noop": handler})
    item = await server.submit(retry=AT_ONCE)
    item = await server.reaches(item.item_id, State.DEAD)
    assert begun == [item.started_at] * 3
    await server.call(server.queue.retry, item.item_id)
    later = await server.reaches(item.item_id, State.DEAD)
    assert later.started_at is not None
    assert item.finished_at is not None
    assert later.started_at > item.finished_at


async def test_of_many_errors_the_first_and_the_newest_are_kept(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        return Failed(f"error {run.attempt}")

    server = await start_server({"noop": handler})
    item = await server.submit(retry=RetryPolicy(attempts=150, initial=timedelta(0)))
    item = await server.reaches(item.item_id, State.DEAD)
    assert [error["attempt"] for error in item.errors] == [*range(1, 11), *range(61, 151)]
    await server.call(server.queue.retry, item.item_id)
    item = await server.reaches(item.item_id, State.DEAD)
    assert [error["attempt"] for error in item.errors] == [*range(1, 11), *range(61, 151)]


@pytest.mark.parametrize("text", ["a" * 10_000_000, "\U0001f980" * 1_000_000, "\ud800\x00" * 1_000_000])
async def test_the_text_of_an_error_is_bounded(start_server: StartServer, text: str) -> None:
    async def handler(run: Run) -> Outcome:
        return Failed(text, reason=text, retryable=False)

    server = await start_server({"noop": handler})
    item = await server.submit()
    (error,) = (await server.reaches(item.item_id, State.DEAD)).errors
    assert 8000 < len(error["error"].encode()) <= 8192
    assert 90 < len(error["reason"].encode()) <= 100
