"""A transaction that holds a concurrency key for long holds up what has this key, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from stationmaster_server.work import claim_store, completer, key_store
from stationmaster_server.work.key_store import Key
from stationmaster_server.work.model import State

from tests.work.conftest import NOTHING_BY_ITSELF, Gate, Server, StartServer, eventually


@asynccontextmanager
async def held(server: Server, name: str) -> AsyncIterator[None]:
    """A key is somebody else's."""
    async with server.database.system() as tx:
        await key_store.lock(tx, [Key(server.tenant.organization_id, name)])
        yield


async def test_the_end_of_every_other_item_is_written_while_a_key_is_held(start_server: StartServer) -> None:
    gate, later = Gate(), Gate()
    server = await start_server({"noop": gate, "later": later}, NOTHING_BY_ITSELF)
    stuck = [await server.submit(concurrency_key="held", claim_here=True) for _ in range(2)]
    others = [await server.submit(claim_here=True), await server.submit(concurrency_key="free", claim_here=True)]
    waiting = await server.submit(concurrency_key="free")
    others.append(await server.submit("later", claim_here=True))
    await eventually(lambda: len(gate.runs) == 3 and bool(later.runs))
    async with held(server, "held"):
        gate.open.set()
        for item in (*others[:2], waiting):
            await server.reaches(item.item_id, State.SUCCEEDED)
        later.open.set()  # what ends after the one that is held up does not queue behind it
        await server.reaches(others[2].item_id, State.SUCCEEDED)
        assert (await server.get(stuck[0].item_id)).state is State.RUNNING
    for item in stuck:
        assert (await server.reaches(item.item_id, State.SUCCEEDED)).attempt == 1


async def test_a_key_that_is_held_longer_than_it_is_waited_for_at_once_is_settled_in_the_end(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completer, "_TURN", timedelta(milliseconds=1))
    gate = Gate()
    server = await start_server({"noop": gate}, NOTHING_BY_ITSELF)
    names = [f"held {n}" for n in range(3)]
    items = [await server.submit(concurrency_key=name, claim_here=True) for name in names]
    await eventually(lambda: len(gate.runs) == len(items))
    async with held(server, names[0]):
        async with held(server, names[1]), held(server, names[2]):
            gate.open.set()
            await server.reaches((await server.submit()).item_id, State.SUCCEEDED)
        for item in items[1:]:
            await server.reaches(item.item_id, State.SUCCEEDED)
        assert (await server.get(items[0].item_id)).state is State.RUNNING
    await server.reaches(items[0].item_id, State.SUCCEEDED)


async def test_a_worker_that_stops_writes_the_ends_of_a_key_that_was_held(start_server: StartServer) -> None:
    gate = Gate()
    server = await start_server({"noop": gate}, NOTHING_BY_ITSELF)
    item = await server.submit(concurrency_key="held", claim_here=True)
    await gate.begun.wait()
    assert server.worker is not None
    async with held(server, "held"):
        gate.open.set()
        await server.reaches((await server.submit()).item_id, State.SUCCEEDED)
        stopping = asyncio.create_task(server.worker.stop(timedelta(seconds=10)))
        await eventually(gate.runs[0].stopping.is_set)
    await stopping
    assert (await server.get(item.item_id)).state is State.SUCCEEDED


async def test_what_died_is_taken_back_while_the_key_of_another_is_held(start_server: StartServer) -> None:
    client = await start_server()
    stuck, other = await client.submit(concurrency_key="held"), await client.submit()
    async with client.database.system(autocommit=True) as tx:
        await claim_store.claim(tx, ["noop"], 2, timedelta(hours=1), "died", timedelta(0))
    async with held(client, "held"):
        reaping = await start_server({"other": Gate()})
        await reaping.reaches(other.item_id, State.QUEUED)
        assert (await reaping.get(stuck.item_id)).state is State.RUNNING
    await reaping.reaches(stuck.item_id, State.QUEUED)


async def test_what_died_is_taken_back_however_much_of_a_held_key_died_before_it(start_server: StartServer) -> None:
    client = await start_server()
    async with client.database.system() as tx:
        stuck = [client.new(concurrency_key="held", max_running=1000) for _ in range(250)]
        await client.queue.submit_many(tx, stuck)
        (other,) = await client.queue.submit_many(tx, [client.new()])
    async with client.database.system(autocommit=True) as tx:
        await claim_store.claim(tx, ["noop"], 1000, timedelta(hours=1), "died", timedelta(0))
        await tx.execute("UPDATE work_items SET lease_expires_at = now() - interval '1 day'")
    async with held(client, "held"):
        reaping = await start_server({"other": Gate()})
        await reaping.reaches(other.item_id, State.QUEUED)
