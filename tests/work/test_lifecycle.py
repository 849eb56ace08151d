"""What people and handlers do to an item on its way: cancel, pause, suspend, resume, tell how far it is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from stationmaster_server.errors import FailedPrecondition, Reason
from stationmaster_server.work.model import (
    Cancelled,
    Failed,
    Outcome,
    RetryPolicy,
    State,
    Succeeded,
    Suspended,
)
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import WorkerSettings

from tests.work.conftest import LIMIT, QUICK, Gate, Server, StartServer, eventually, noop

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
    gate = Gate(Cancelled("asked to"))
    server = await start_server({"noop": gate})
    item = await server.submit(claim_here=True)
    await gate.begun.wait()
    assert (await server.call(server.queue.cancel, item.item_id)).state is State.RUNNING
    assert gate.runs[0].cancelled.is_set()
    gate.open.set()
    assert (await server.reaches(item.item_id, State.CANCELLED)).reason == "asked to"


async def test_another_servers_worker_hears_of_a_cancel_with_a_heartbeat(start_server: StartServer) -> None:
    runs = await start_server({"noop": cancellable}, WorkerSettings(poll=timedelta(milliseconds=50)))
    asks = await start_server()
    item = await asks.submit()
    await runs.reaches(item.item_id, State.RUNNING)
    await asks.call(asks.queue.cancel, item.item_id)
    assert (await asks.reaches(item.item_id, State.CANCELLED)).reason == "asked to"


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


async def test_a_handler_that_waits_for_other_work_takes_no_slot(start_server: StartServer) -> None:
    """With one slot it would wait for ever; and it has it again as soon as it goes on."""
    server: Server

    async def waits(run: Run) -> Outcome:
        other = await server.submit("noop")
        with run.waiting():
            await server.reaches(other.item_id, State.SUCCEEDED)
        went_on.append(run)
        await gate.open.wait()
        return Succeeded()

    went_on: list[Run] = []
    gate = Gate()
    server = await start_server({"waits": waits, "noop": noop, "gated": gate}, replace(QUICK, slots=1))
    first, second = await server.submit("waits"), await server.submit("waits")
    await eventually(lambda: bool(went_on))  # whether the other could do so before it took its slot again is luck
    later = await server.submit("gated")
    assert (await server.get(later.item_id)).state is State.QUEUED
    gate.open.set()
    for item in (first, second, later):
        await server.reaches(item.item_id, State.SUCCEEDED)
