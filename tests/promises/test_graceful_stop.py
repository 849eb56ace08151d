"""SIGTERM in the middle of a reply: told first, then the turn ends or is handed back; no reader loses a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from stationmaster.v1 import event_pb2, session_pb2
from stationmaster_client import Client, Interruption

from tests.crash.test_kill import free_port, replay, shown
from tests.fixtures.server import HealthStub, ServerProcess, StartServer

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SESSIONS = "stationmaster.v1.SessionService"
SLACK_SECONDS = 30.0
"""What a busy machine may add to the grace."""


@dataclass
class Health:
    """What a balancer that watches health hears, and when."""

    heard: dict[str, list[tuple[float, int]]] = field(default_factory=dict)

    def when(self, service: str, status: int) -> float:
        """The moment a status was heard."""
        return next(moment for moment, heard in self.heard[service] if heard == status)

    def statuses(self, service: str) -> list[int]:
        return [status for _, status in self.heard[service]]


@asynccontextmanager
async def watching(target: str) -> AsyncIterator[Health]:
    """Watch the health of the server and of one service, until they go away."""
    health = Health()
    ready = asyncio.Semaphore(0)

    async def watch(stub: Any, service: str) -> None:
        heard = health.heard.setdefault(service, [])
        try:
            async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=service)):
                heard.append((monotonic(), answer.status))
                ready.release()
        except grpc.aio.AioRpcError:
            pass  # the server is gone

    async with grpc.aio.insecure_channel(target) as channel:
        tasks = [asyncio.create_task(watch(HealthStub(channel), service)) for service in ("", SESSIONS)]
        for _ in tasks:
            await asyncio.wait_for(ready.acquire(), 10)
        yield health
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Reply:
    """A reply as its reader sees it."""

    events: list[event_pb2.Event] = field(default_factory=list)
    interruptions: list[Interruption] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0

    async def read(self, client: Client, session: str, text: str) -> None:
        """Send the text and read to the end of the turn."""
        async with client.sessions.send(session, text, on_interruption=self.interruptions.append) as stream:
            async for event in stream:
                self.events.append(event)
                if event.HasField("text_delta"):
                    self.begun.set()
        self.ended_at = monotonic()

    @property
    def words(self) -> list[str]:
        return shown(self.events).split()


async def stop(server: ServerProcess, grace: float) -> float:
    """SIGTERM; the seconds to the end of the process, which is orderly and within the grace."""
    began = monotonic()
    assert await server.stop(seconds=grace + 20) == 0, server.text
    took = monotonic() - began
    assert took < grace + SLACK_SECONDS
    return took


def told_first(health: Health, moment: float) -> None:
    """Whoever watches health heard it before something else happened."""
    for service in ("", SESSIONS):
        assert health.statuses(service) == [SERVING, NOT_SERVING]
        assert health.when(service, NOT_SERVING) < moment


async def start(start_server: StartServer, database_url: str, port: int, grace: str) -> ServerProcess:
    environment = {
        "STATIONMASTER_SERVER__PORT": str(port),
        "STATIONMASTER_SERVER__SHUTDOWN_GRACE": grace,
        "STATIONMASTER_WORK__LEASE": "60s",  # longer than any test: what was not handed back would not be taken up
    }
    return await start_server(database_url=database_url, environment=environment)


async def test_a_reply_that_ends_within_the_grace_is_not_disturbed(
    server_process: StartServer, database_url: str
) -> None:
    server = await start(server_process, database_url, free_port(), "15s")
    reply = Reply()
    async with Client.connect(server.target, server.admin_key) as client, watching(server.target) as health:
        session = await client.sessions.create(model="demo")
        reading = asyncio.create_task(reply.read(client, session.name, "/slow 10\n/say 150"))
        await asyncio.wait_for(reply.begun.wait(), 10)
        await stop(server, 15)
        await asyncio.wait_for(reading, 5)
    told_first(health, reply.ended_at)
    assert reply.words == [f"word{number}" for number in range(1, 151)]
    assert reply.events[-1].turn_finished.state == event_pb2.TURN_STATE_COMPLETED
    assert not reply.interruptions


async def test_a_reply_that_outlasts_the_grace_is_handed_back_and_goes_on_at_the_next_server(
    server_process: StartServer, database_url: str
) -> None:
    port = free_port()
    server = await start(server_process, database_url, port, "1s")
    reply = Reply()
    async with Client.connect(server.target, server.admin_key) as client:
        session = await client.sessions.create(model="demo")
        async with watching(server.target) as health:
            reading = asyncio.create_task(reply.read(client, session.name, "/slow 15\n/say 300"))
            await asyncio.wait_for(reply.begun.wait(), 10)
            await stop(server, 1)
        assert not reading.done()
        seen = [event.sequence for event in reply.events]
        restarted_at = monotonic()
        await start(server_process, database_url, port, "1s")
        async with asyncio.timeout(40):
            await reading
        after = await client.sessions.get(session.name)
        stored = await replay(client, after)
        turn = await client.sessions.turn(reply.events[0].turn)
    told_first(health, restarted_at)
    assert reply.interruptions, "the stream went on by itself"
    assert reply.interruptions[0].error.reason in ("SERVER_STOPPING", ""), reply.interruptions[0]
    assert reply.words == [f"word{number}" for number in range(1, 301)]
    assert [event.sequence for event in reply.events][: len(seen)] == seen
    kept = {event.sequence: event.SerializeToString(deterministic=True) for event in stored}
    assert all(kept[event.sequence] == event.SerializeToString(deterministic=True) for event in reply.events)
    assert reply.events[-1].turn_finished.state == event_pb2.TURN_STATE_COMPLETED
    assert after.state == session_pb2.SESSION_STATE_ACTIVE
    assert turn.attempts == 2


async def test_a_turn_that_waits_for_a_permission_survives_the_stop(
    server_process: StartServer, database_url: str
) -> None:
    """Nothing is held in memory while a person thinks: the next server takes the answer."""
    port = free_port()
    server = await start(server_process, database_url, port, "5s")
    async with Client.connect(server.target, server.admin_key) as client:
        spec = session_pb2.Session().spec
        spec.model = "demo"
        spec.tools.append("files.*")
        session = await client.sessions.create(spec=spec)
        text = '/tool files.write {"path": "a.txt", "content": "kept"}\n/say 3'
        async with client.sessions.send(session.name, text, stop_at_permission=True) as stream:
            asked = [event async for event in stream][-1]
        took = await stop(server, 5)
        assert took < 5, "nothing had to be waited for"
        await start(server_process, database_url, port, "5s")
        async with client.sessions.watch(session.name, after=asked.sequence) as watched:
            await client.permissions.allow(asked.permission_requested.permission_request)
            async with asyncio.timeout(20):
                async for event in watched:
                    if event.HasField("turn_finished"):
                        break
        assert event.turn_finished.state == event_pb2.TURN_STATE_COMPLETED


async def test_an_execution_that_outlasts_the_grace_is_handed_back_told_and_goes_on_in_the_same_attempt(
    server_process: StartServer, database_url: str
) -> None:
    port = free_port()
    server = await start(server_process, database_url, port, "1s")
    begun, told = asyncio.Event(), list[event_pb2.ExecutionStateChanged]()
    async with Client.connect(server.target, server.admin_key) as client:
        execution = await client.executions.submit("prompt", {"model": "demo", "prompt": "/slow 15\n/say 300"})

        async def read() -> None:
            async with client.executions.watch(execution.name) as stream:
                async for event in stream:
                    if event.HasField("execution_state_changed"):
                        told.append(event.execution_state_changed)
                    if event.HasField("execution_log"):
                        begun.set()

        reading = asyncio.create_task(read())
        await asyncio.wait_for(begun.wait(), 60)
        assert await server.stop(seconds=90) == 0
        assert not reading.done()
        await start(server_process, database_url, port, "1s")
        async with asyncio.timeout(90):
            await reading
        ended = await client.executions.get(execution.name)
    assert [(one.state, one.attempt, one.reason) for one in told] == [
        ("QUEUED", 0, ""),
        ("RUNNING", 1, ""),
        ("QUEUED", 1, "HANDED_BACK"),
        ("RUNNING", 1, ""),
        ("SUCCEEDED", 1, ""),
    ]
    assert (ended.attempt_count, len(ended.failed_attempts)) == (1, 0)
