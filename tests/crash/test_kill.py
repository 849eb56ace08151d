"""SIGKILL at random points of a reply: nothing that was seen is lost, nothing comes twice, no session stays stuck."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from stationmaster.v1 import agent_pb2, event_pb2, prompt_pb2, session_pb2
from stationmaster_client import Client

from tests.fixtures.server import ServerProcess, StartServer

REPLY = "/slow 1\n/say 1000"
WORDS = " ".join(f"word{number}" for number in range(1, 1001))
LEASE = "1s"
RESUME, INTERRUPT = session_pb2.RECOVERY_POLICY_RESUME, session_pb2.RECOVERY_POLICY_INTERRUPT


@dataclass
class Mortal:
    """A server that is killed and started again on the same port and database."""

    start_server: StartServer
    database_url: str
    port: int
    server: ServerProcess

    async def kill_and_restart(self) -> None:
        """SIGKILL, then at once a new one."""
        await self.server.kill()
        self.server = await start(self.start_server, self.database_url, self.port)


async def start(start_server: StartServer, database_url: str, port: int) -> ServerProcess:
    environment = {"STATIONMASTER_SERVER__PORT": str(port), "STATIONMASTER_WORK__LEASE": LEASE}
    return await start_server(database_url=database_url, environment=environment)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest_asyncio.fixture
async def mortal(server_process: StartServer, database_url: str) -> AsyncIterator[Mortal]:
    """A server on a port that stays the same."""
    port = free_port()
    yield Mortal(server_process, database_url, port, await start(server_process, database_url, port))


async def replay(client: Client, session: session_pb2.Session) -> list[event_pb2.Event]:
    """The whole stream of a session, from the beginning to its newest event."""
    events = []
    async with client.sessions.watch(session.name, after=0) as stream:
        async for event in stream:
            events.append(event)
            if event.sequence >= session.last_sequence:
                return events
    return events


def shown(events: list[event_pb2.Event]) -> str:
    """The text of the answer: the deltas less those that were replaced."""
    replaced: set[int] = set()
    for event in events:
        if event.HasField("answer_restarted"):
            span = event.answer_restarted.replaces
            replaced |= set(range(span.first_sequence, span.last_sequence + 1))
    return "".join(e.text_delta.text for e in events if e.HasField("text_delta") and e.sequence not in replaced)


async def survive(
    client: Client, mortal: Mortal, chance: random.Random, policy: session_pb2.RecoveryPolicy.ValueType
) -> str:
    """One reply with one kill; returns how the turn ended."""
    session = await client.sessions.create(model="demo")
    words_before_kill = chance.randint(0, 990)
    seen: list[event_pb2.Event] = []
    words, restart = 0, None
    async with client.sessions.send(session.name, REPLY, recovery_policy=policy) as events:
        async for event in events:
            seen.append(event)
            words += event.text_delta.text.count("word")
            if restart is None and words >= words_before_kill:
                restart = asyncio.create_task(mortal.kill_and_restart())
    assert restart is not None
    await restart
    after = await client.sessions.get(session.name)
    stored = await replay(client, after)
    assert [event.sequence for event in stored] == list(range(1, len(stored) + 1))
    assert len({event.sequence for event in seen}) == len(seen)
    by_sequence = {event.sequence: event.SerializeToString(deterministic=True) for event in stored}
    for event in seen:
        assert by_sequence[event.sequence] == event.SerializeToString(deterministic=True)
    assert after.state == session_pb2.SESSION_STATE_ACTIVE
    finished = seen[-1].turn_finished
    (answer,) = [
        e.message_added.message for e in stored if e.message_added.message.role == event_pb2.MESSAGE_ROLE_ASSISTANT
    ]
    text = "".join(part.text for part in answer.parts)
    assert text == shown(stored)
    if finished.state == event_pb2.TURN_STATE_COMPLETED:
        assert text.split() == WORDS.split()
    else:
        assert finished.state == event_pb2.TURN_STATE_INTERRUPTED
        assert answer.interrupted
        assert WORDS.startswith(text.strip())
    return event_pb2.TurnState.Name(finished.state)


async def kill_often(mortal: Mortal, seed: int, times: int) -> dict[str, int]:
    """How the turns ended."""
    chance = random.Random(seed)
    ends: dict[str, int] = {}
    async with Client.connect(f"127.0.0.1:{mortal.port}", mortal.server.admin_key) as client:
        for number in range(times):
            policy = INTERRUPT if number % 2 else RESUME
            async with asyncio.timeout(60):
                end = await survive(client, mortal, chance, policy)
            ends[end] = ends.get(end, 0) + 1
    return ends


async def test_a_killed_server_loses_nothing_and_ends_the_turn_by_its_policy(mortal: Mortal) -> None:
    ends = await kill_often(mortal, seed=1, times=4)
    assert sum(ends.values()) == 4


async def test_an_answer_that_another_server_keeps_tells_the_prompt_that_it_was_told(mortal: Mortal) -> None:
    async with Client.connect(f"127.0.0.1:{mortal.port}", mortal.server.admin_key) as client:
        await client.prompts.create("p", "one", labels=["production"])
        session = await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo", prompt="p@production"))
        restart = None
        async with (
            asyncio.timeout(60),
            client.sessions.send(session.name, REPLY, recovery_policy=INTERRUPT) as events,
        ):
            async for event in events:
                if restart is None and event.HasField("text_delta"):
                    await client.prompts.update(
                        prompt_pb2.Prompt(name="prompts/p", template="two"), labels=["production"]
                    )
                    restart = asyncio.create_task(mortal.kill_and_restart())
        assert restart is not None
        await restart
        assert event.turn_finished.state == event_pb2.TURN_STATE_INTERRUPTED
        answer = [message async for message in client.sessions.messages(session.name)][-1]
    assert answer.interrupted
    assert answer.provenance.prompt_version == "prompts/p/versions/1"


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_hundred_kills_lose_nothing(mortal: Mortal) -> None:
    ends = await kill_often(mortal, seed=20261121, times=100)
    assert sum(ends.values()) == 100
    assert ends.get("TURN_STATE_COMPLETED", 0) >= 50
