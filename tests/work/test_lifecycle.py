"""What happens to an item on its way: cancel, pause, suspend, retry, timeouts, completion in a transaction."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Aborted, FailedPrecondition, LeaseLost, NotFound, Reason, Unavailable
from stationmaster_server.work import follow_up_store
from stationmaster_server.work.model import (
    Cancelled,
    Failed,
    Outcome,
    Released,
    RetryPolicy,
    State,
    Succeeded,
    Suspended,
    Timeouts,
    WorkItem,
)
from stationmaster_server.work.reaper import Reaper
from stationmaster_server.work.retry import Decision
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import WorkerSettings

from tests.work.conftest import LIMIT, NOTHING_BY_ITSELF, QUICK, Gate, Server, StartServer, eventually, noop

AT_ONCE = RetryPolicy(initial=timedelta(0))


async def test_a_queued_item_is_cancelled_at_once(idle: Server) -> None:
    item = await idle.submit()
    cancelled = await idle.call(idle.queue.cancel, item.item_id, "NOT_WANTED")
    assert (cancelled.state, cancelled.reason) == (State.CANCELLED, "NOT_WANTED")
    assert (await idle.call(idle.queue.cancel, item.item_id)).reason == "NOT_WANTED"


async def cancellable(run: Run) -> Outcome:
    await run.cancelled.wait()
    return Cancelled("asked to")


async def test_the_servers_own_worker_hears_of_a_cancel_at_once(start_server: StartServer) -> None:
    server = await start_server({"noop": cancellable}, WorkerSettings(lease=timedelta(hours=1)))
    item = await server.submit(claim_here=True)
    before = time.monotonic()
    assert (await server.call(server.queue.cancel, item.item_id)).state is State.RUNNING
    item = await server.reaches(item.item_id, State.CANCELLED)
    assert time.monotonic() - before < 0.5
    assert item.reason == "asked to"


async def test_another_servers_worker_hears_of_a_cancel_within_a_second(start_server: StartServer) -> None:
    runs = await start_server({"noop": cancellable}, WorkerSettings(poll=timedelta(milliseconds=50)))
    asks = await start_server()
    item = await asks.submit()
    await runs.reaches(item.item_id, State.RUNNING)
    before = time.monotonic()
    await asks.call(asks.queue.cancel, item.item_id)
    await asks.reaches(item.item_id, State.CANCELLED)
    assert time.monotonic() - before < 1.5


async def test_a_handler_that_ignores_a_cancel_is_ended_after_the_grace(start_server: StartServer) -> None:
    server = await start_server({"noop": Gate()}, WorkerSettings(cancel_grace=timedelta(milliseconds=50)))
    item = await server.submit(claim_here=True)
    await server.call(server.queue.cancel, item.item_id)
    await server.reaches(item.item_id, State.CANCELLED)


async def test_a_cancelled_item_is_not_retried(start_server: StartServer) -> None:
    gate = Gate(Failed("broken"))
    server = await start_server({"noop": gate})
    item = await server.submit(claim_here=True, retry=AT_ONCE)
    await server.call(server.queue.cancel, item.item_id)
    gate.open.set()
    item = await server.reaches(item.item_id, State.CANCELLED)
    assert len(item.errors) == 1


async def test_a_handler_is_told_of_a_pause_and_of_its_end(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate})
    item = await server.submit(claim_here=True)
    await gate.begun.wait()
    await server.call(server.queue.pause, item.item_id)
    await eventually(lambda: gate.runs[0].paused)
    await server.call(server.queue.unpause, item.item_id)
    await eventually(lambda: not gate.runs[0].paused)


async def test_what_a_heartbeat_could_not_carry_comes_with_a_later_one(start_server: StartServer) -> None:
    broken, locked = Gate(), Gate()
    server = await start_server({"broken": broken, "locked": locked})
    items = [await server.submit(kind, claim_here=True) for kind in ("broken", "locked")]
    await asyncio.gather(broken.begun.wait(), locked.begun.wait())
    (bad,), (good,) = broken.runs, locked.runs
    async with server.database.system() as tx:
        await tx.execute("SELECT FROM work_items WHERE item_id = $1 FOR UPDATE", items[1].item_id)
        good.heartbeat({"fraction": 0.5})
        bad.heartbeat({"fraction": object()})
        before = bad.renewed_at
        # The progress that is no JSON costs neither its own lease nor the other's progress.
        await eventually(lambda: bad.renewed_at > before)
    async with asyncio.timeout(LIMIT):
        while (await server.get(items[1].item_id)).progress != {"fraction": 0.5}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await eventually(lambda: not good.alive)


async def test_a_handler_that_is_cancelled_by_its_own_library_has_failed(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        raise asyncio.CancelledError

    server = await start_server({"noop": handler})
    item = await server.submit(retry=replace(AT_ONCE, attempts=2))
    item = await server.reaches(item.item_id, State.DEAD)
    assert [error["reason"] for error in item.errors] == ["CANCELLED_ITSELF"] * 2


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


async def test_progress_is_carried_out_by_heartbeats(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate})
    item = await server.submit(claim_here=True)
    await gate.begun.wait()
    gate.runs[0].heartbeat({"fraction": 0.5})
    async with asyncio.timeout(LIMIT):
        while (await server.get(item.item_id)).progress != {"fraction": 0.5}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_suspended_item_frees_its_worker_and_runs_again_when_resumed(start_server: StartServer) -> None:
    attempts: list[int] = []

    async def handler(run: Run) -> Outcome:
        attempts.append(run.attempt)
        return Suspended() if len(attempts) < 5 else Succeeded()

    server = await start_server({"noop": handler, "other": noop}, WorkerSettings(slots=1))
    item = await server.submit()
    for times in range(1, 5):
        await server.reaches(item.item_id, State.SUSPENDED)
        await server.reaches((await server.submit("other")).item_id, State.SUCCEEDED)
        await server.call(server.queue.resume, item.item_id)
        await eventually(partial(more_than, attempts, times))
    await server.reaches(item.item_id, State.SUCCEEDED)
    assert attempts == [1] * 5


def more_than(attempts: list[int], times: int) -> bool:
    return len(attempts) > times


async def test_a_resume_that_comes_before_the_suspension_is_not_lost(start_server: StartServer) -> None:
    gate = Gate(Suspended())
    server = await start_server({"noop": gate})
    item = await server.submit(claim_here=True)
    await gate.begun.wait()
    assert (await server.call(server.queue.resume, item.item_id)).state is State.RUNNING
    gate.open.set()
    await eventually(lambda: len(gate.runs) == 2)
    await server.reaches(item.item_id, State.SUSPENDED)


async def test_a_suspended_item_keeps_its_slot_of_the_concurrency_key(start_server: StartServer) -> None:
    gate = Gate(Suspended())
    gate.open.set()
    server = await start_server({"noop": gate})
    first = await server.submit(concurrency_key="session")
    await server.reaches(first.item_id, State.SUSPENDED)
    second = await server.submit(concurrency_key="session")
    assert second.state is State.WAITING
    await server.call(server.queue.cancel, first.item_id)
    await server.reaches(second.item_id, State.SUSPENDED)


async def test_resuming_what_has_ended_is_refused(idle: Server) -> None:
    item = await idle.submit()
    assert (await idle.call(idle.queue.resume, item.item_id)).state is State.QUEUED
    await idle.call(idle.queue.cancel, item.item_id)
    for method in (idle.queue.resume, idle.queue.pause, idle.queue.retry):
        with pytest.raises(FailedPrecondition) as refusal:
            await idle.call(method, item.item_id)
        assert refusal.value.reason is Reason.ILLEGAL_TRANSITION
        assert "CANCELLED" in refusal.value.message


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
    before = time.monotonic()
    item = await server.submit(retry=policy)
    await server.reaches(item.item_id, State.SUCCEEDED)
    assert time.monotonic() - before >= 0.4


async def test_dead_items_are_listed_and_retried_singly_or_by_filter(start_server: StartServer) -> None:
    broken = True

    async def handler(run: Run) -> Outcome:
        return Failed("broken", retryable=False) if broken else Succeeded()

    server = await start_server({"a": handler, "b": handler})
    items = [await server.submit(kind) for kind in ("a", "a", "b", "b", "b")]
    for item in items:
        await server.reaches(item.item_id, State.DEAD)
    dead = await server.call(server.queue.list_dead, limit=3)
    last = (dead[-1].finished_at, dead[-1].item_id)
    dead += await server.call(server.queue.list_dead, after=last)
    assert {item.item_id for item in dead} == {item.item_id for item in items}
    assert all(item.errors[0]["error"] == "broken" for item in dead)
    broken = False
    await server.call(server.queue.retry, items[0].item_id)
    await server.reaches(items[0].item_id, State.SUCCEEDED)
    assert await server.call(server.queue.retry_dead, kind="b") == 3
    for item in items[2:]:
        await server.reaches(item.item_id, State.SUCCEEDED)
    assert [item.item_id for item in await server.call(server.queue.list_dead)] == [items[1].item_id]


async def test_a_dead_item_is_not_retried_before_its_end_was_followed_up(idle: Server) -> None:
    item = await idle.submit(follow_up=True)
    async with idle.database.system() as tx:
        await tx.execute("UPDATE work_items SET state = 'DEAD', finished_at = now()")
    with pytest.raises(Aborted, match="is being dealt with"):
        await idle.call(idle.queue.retry, item.item_id)
    assert await idle.call(idle.queue.retry_dead) == 0
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
    item = await server.submit(timeouts=Timeouts(schedule_to_close=timedelta(milliseconds=300)))
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
    timeouts = Timeouts(heartbeat=timedelta(milliseconds=500))
    alive = await server.submit("lively", timeouts=timeouts)
    still = await server.submit("still", timeouts=timeouts, retry=RetryPolicy(attempts=1))
    assert (await server.reaches(still.item_id, State.DEAD)).errors[0]["reason"] == "HEARTBEAT"
    still_is_dead.set()
    assert (await server.reaches(alive.item_id, State.SUCCEEDED)).attempt == 1


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
    before = time.monotonic()
    await server.worker.stop(timedelta(milliseconds=100))
    assert time.monotonic() - before < 2
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


async def test_what_a_handler_writes_when_its_item_is_queued_again_is_written_with_that(
    start_server: StartServer,
) -> None:
    seen: list[tuple[str, bool, str, str]] = []

    async def handler(run: Run) -> Outcome:
        run.requeued = partial(requeued, run)
        return outcomes.pop(0)

    async def requeued(run: Run, tx: Transaction, decision: Decision) -> None:
        state = await tx.fetchval("SELECT state FROM work_items WHERE item_id = $1", run.item.item_id)
        outside = await server.get(run.item.item_id)
        seen.append(((decision.error or {}).get("reason", ""), decision.refund, state, outside.state))

    outcomes: list[Outcome] = [Released(), Failed("broken", reason="BROKEN"), Released(), Succeeded()]
    server = await start_server({"noop": handler})
    item = await server.submit(retry=AT_ONCE)
    await server.reaches(item.item_id, State.SUCCEEDED)
    handed_back = ("", True, "QUEUED", "RUNNING")
    assert seen == [handed_back, ("BROKEN", False, "QUEUED", "RUNNING"), handed_back]


async def test_nothing_is_written_for_an_item_that_is_not_queued_again(start_server: StartServer) -> None:
    gate = Gate(Released())
    called: list[Decision] = []

    async def requeued(tx: Transaction, decision: Decision) -> None:
        called.append(decision)

    async def handler(run: Run) -> Outcome:
        run.requeued = requeued
        return Failed("broken", retryable=False)

    async def cancelled_meanwhile(run: Run) -> Outcome:
        run.requeued = requeued
        return await gate(run)

    server = await start_server({"noop": handler, "gated": cancelled_meanwhile})
    item = await server.submit("gated")
    await gate.begun.wait()
    await server.call(server.queue.cancel, item.item_id)
    gate.open.set()
    await server.reaches(item.item_id, State.CANCELLED)
    await server.reaches((await server.submit()).item_id, State.DEAD)
    assert called == []


async def test_an_item_whose_handler_cannot_write_is_not_queued_and_costs_no_other(start_server: StartServer) -> None:
    async def handler(run: Run) -> Outcome:
        if run.item.item_id == culprit.item_id and run.attempt == 1:
            run.requeued = refuse
        return Released() if run.attempt == 1 and run.item.item_id == culprit.item_id else Succeeded()

    async def refuse(tx: Transaction, decision: Decision) -> None:
        raise ZeroDivisionError

    culprit = await (idle := await start_server()).submit()
    others = [await idle.submit() for _ in range(5)]
    server = await start_server({"noop": handler})
    for item in others:
        await server.reaches(item.item_id, State.SUCCEEDED)
    item = await server.reaches(culprit.item_id, State.SUCCEEDED)
    assert [error["reason"] for error in item.errors] == ["LEASE_EXPIRED"]


async def stopped_amid_a_submission(server: Server, grace: timedelta) -> tuple[WorkItem, asyncio.Task[None]]:
    """An item whose lease was promised before the worker began to stop, and which is committed after that."""
    worker = server.worker
    assert worker is not None
    async with server.database.system() as tx:
        item = await server.queue.submit(tx, server.new(), claim_here=True)
        assert item.state is State.RUNNING
        stopping = asyncio.create_task(worker.stop(grace))
        await eventually(worker._stopping.is_set)
        await asyncio.sleep(0)
    return item, stopping


@pytest.mark.parametrize("grace", [timedelta(0), timedelta(milliseconds=300)], ids=["no grace", "a grace"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_what_is_taken_amid_the_stop_is_handed_back(
    start_server: StartServer, grace: timedelta, busy: bool
) -> None:
    gate = Gate()
    server = await start_server({"busy": gate, "noop": Gate()}, replace(NOTHING_BY_ITSELF, lease=timedelta(hours=1)))
    if busy:
        await server.submit("busy", claim_here=True)
        await gate.begun.wait()
    item, stopping = await stopped_amid_a_submission(server, grace)
    await stopping
    item = await server.get(item.item_id)
    assert (item.state, item.attempt, item.errors) == (State.QUEUED, 0, [])


async def test_what_is_taken_amid_the_stop_has_its_grace(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate}, NOTHING_BY_ITSELF)
    item, stopping = await stopped_amid_a_submission(server, timedelta(seconds=20))
    await gate.begun.wait()
    assert not stopping.done()
    gate.open.set()
    await stopping
    assert (await server.get(item.item_id)).state is State.SUCCEEDED
    assert (await server.submit(claim_here=True)).state is State.QUEUED, "nothing more is taken"


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
