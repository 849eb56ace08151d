"""The database goes away while the server runs: every call says so and when to come again, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import grpc
import pytest_asyncio
from stationmaster.v1 import agent_pb2, event_pb2, session_pb2
from stationmaster_client import Client
from stationmaster_server.db.embedded.server import Membership

from tests.contract import descriptors
from tests.contract.samples import smallest
from tests.contract.world import Caller, connect, furnish
from tests.crash.test_kill import replay
from tests.fixtures.server import RunningServer, running, server_settings
from tests.promises.refusal import refused
from tests.promises.test_graceful_stop import Reply
from tests.promises.valid import SPEC, invoke
from tests.waiting import until

ANSWER_LIMIT_SECONDS = 10.0
WORDS = [f"word{number}" for number in range(1, 301)]


@dataclass
class Power:
    """Switches a PostgreSQL of our own off and on."""

    folder: Path
    member: Membership

    async def off(self) -> None:
        """The last one out stops it."""
        await asyncio.to_thread(self.member.leave)

    async def on(self) -> None:
        """Start it again, with what it had."""
        self.member = await asyncio.to_thread(Membership.join, self.folder)


@asynccontextmanager
async def powered(folder: Path) -> AsyncIterator[Power]:
    """A PostgreSQL of this test alone."""
    power = Power(folder, await asyncio.to_thread(Membership.join, folder))
    try:
        yield power
    finally:
        await power.off()


@pytest_asyncio.fixture
async def power(data_folder: Path) -> AsyncIterator[Power]:
    """A PostgreSQL that can be switched off."""
    async with powered(data_folder) as power:
        yield power


@pytest_asyncio.fixture
async def powered_server(power: Power, tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A server on it."""
    async with running(server_settings(tmp_path / "data", power.member.cluster.url())) as server:
        yield server


async def answers(caller: Caller) -> bool:
    """Whether calls are answered, even one that needs the database for nothing but its caller's key."""
    try:
        await invoke(caller, "ListModels", agent_pb2.ListModelsRequest())
        await invoke(caller, "ListSessions", session_pb2.ListSessionsRequest())
    except grpc.aio.AioRpcError:
        return False
    return True


async def key_is_forgotten(caller: Caller) -> bool:
    """Whether the server would have to look the key up, which it believes for a second."""
    try:
        await invoke(caller, "ListModels", agent_pb2.ListModelsRequest())
    except grpc.aio.AioRpcError:
        return True
    return False


async def test_every_method_says_that_the_database_is_away_and_serves_again_when_it_is_back(
    powered_server: RunningServer, power: Power
) -> None:
    async with connect(powered_server.target, powered_server.admin_key) as caller:
        await furnish(caller, powered_server.app.database_url)
        before = await invoke(caller, "ListSessions", session_pb2.ListSessionsRequest())
        await power.off()
        await until(lambda: key_is_forgotten(caller))
        began = monotonic()
        methods = descriptors.methods()
        refusals = await asyncio.gather(
            *(refused(caller.call(method, smallest(method.request, caller.names), timeout=60)) for method in methods)
        )
        assert monotonic() - began < ANSWER_LIMIT_SECONDS
        for method, refusal in zip(methods, refusals, strict=True):
            assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE"), method.name
            assert "try again" in refusal.message
        await power.on()
        await until(lambda: answers(caller))
        assert await invoke(caller, "ListSessions", session_pb2.ListSessionsRequest()) == before
        made = session_pb2.CreateSessionRequest(session=session_pb2.Session(spec=SPEC))
        await invoke(caller, "CreateSession", made)


async def test_a_reply_under_way_outlives_an_outage_without_losing_a_word(
    powered_server: RunningServer, power: Power
) -> None:
    reply = Reply()
    async with Client.connect(powered_server.target, powered_server.admin_key) as client:
        session = await client.sessions.create(model="demo")
        idle = await client.sessions.create(model="demo")
        async with client.sessions.watch(idle.name, after=0) as watched:
            assert (await anext(watched)).HasField("session_created")
            reading = asyncio.create_task(reply.read(client, session.name, "/slow 15\n/say 300"))
            await asyncio.wait_for(reply.begun.wait(), 10)
            await power.off()
            assert not reading.done()
            await power.on()
            async with asyncio.timeout(60):
                await reading
            assert (await client.sessions.ask(idle.name, "/say 1")).text.split() == ["word1"]
            async with asyncio.timeout(20):
                async for event in watched:
                    if event.HasField("turn_finished"):
                        break
        after = await client.sessions.get(session.name)
        stored = await replay(client, after)
    assert reply.words == WORDS
    assert reply.events[-1].turn_finished.state == event_pb2.TURN_STATE_COMPLETED
    assert [event.sequence for event in stored] == list(range(1, len(stored) + 1))
    kept = {event.sequence: event.SerializeToString(deterministic=True) for event in stored}
    assert all(kept[event.sequence] == event.SerializeToString(deterministic=True) for event in reply.events)
    assert after.state == session_pb2.SESSION_STATE_ACTIVE
