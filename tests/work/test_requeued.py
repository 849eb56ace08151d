"""What a handler writes when its item is queued again is true exactly when that is."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.work.model import Failed, Outcome, Released, RetryPolicy, State, Succeeded
from stationmaster_server.work.retry import Decision
from stationmaster_server.work.run import Run

from tests.work.conftest import Gate, StartServer

AT_ONCE = RetryPolicy(initial=timedelta(0))


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
