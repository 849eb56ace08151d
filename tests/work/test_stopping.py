"""What is given to a worker while it stops."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from stationmaster_server.work.model import State, WorkItem

from tests.db.conditions import eventually
from tests.work.conftest import NOTHING_BY_ITSELF, Gate, Server, StartServer


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
