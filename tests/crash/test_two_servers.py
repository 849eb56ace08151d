"""Two servers on one database: what one begins the other shows live, and ends when the first dies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

from stationmaster.v1 import event_pb2, session_pb2
from stationmaster_client import Client

from tests.fixtures.server import ServerProcess, StartServer

LEASE_SECONDS = 2.0
SLACK_SECONDS = 1.0


async def pair(start: StartServer, database_url: str, data_folder: Path) -> tuple[ServerProcess, ServerProcess]:
    environment = {"STATIONMASTER_WORK__LEASE": f"{LEASE_SECONDS}s"}
    first = await start(database_url=database_url, environment=environment)
    second = await start(database_url=database_url, environment=environment, folder=data_folder.parent / "second")
    return first, second


async def test_a_conversation_is_watched_live_on_the_other_server(
    server_process: StartServer, database_url: str, data_folder: Path
) -> None:
    first, second = await pair(server_process, database_url, data_folder)
    key = first.admin_key
    async with Client.connect(first.target, key) as one, Client.connect(second.target, key) as other:
        session = await one.sessions.create(model="demo")
        async with other.sessions.watch(session.name, after=0) as watched:
            async with one.sessions.send(session.name, "/slow 5\n/say 100") as sent:
                here = [event async for event in sent]
            there = []
            async with asyncio.timeout(10):
                async for event in watched:
                    there.append(event)
                    if event.HasField("turn_finished"):
                        break
    assert [event for event in there if event.turn] == here


async def test_the_other_server_ends_the_turn_of_one_that_was_killed_within_the_lease_and_a_second(
    server_process: StartServer, database_url: str, data_folder: Path
) -> None:
    first, second = await pair(server_process, database_url, data_folder)
    key = first.admin_key
    async with Client.connect(second.target, key) as other:
        async with Client.connect(first.target, key) as one:
            session = await one.sessions.create(model="demo")
            policy = session_pb2.RECOVERY_POLICY_INTERRUPT
            async with one.sessions.send(session.name, "/slow 20\n/say 1000", recovery_policy=policy) as sent:
                async for event in sent:
                    if event.HasField("text_delta"):
                        break
        await first.kill()
        killed_at = monotonic()
        async with asyncio.timeout(30), other.sessions.watch(session.name, after=event.sequence) as watched:
            async for event in watched:
                if event.HasField("turn_finished"):
                    break
        took = monotonic() - killed_at
        assert event.turn_finished.state == event_pb2.TURN_STATE_INTERRUPTED
        assert (await other.sessions.get(session.name)).state == session_pb2.SESSION_STATE_ACTIVE
    # The promise is the lease and a second; the rest allows for a busy machine.
    assert took < LEASE_SECONDS + SLACK_SECONDS + 4
