"""Whole servers: what their people see, and that no command line outlives any kind of end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from stationmaster.v1 import agent_pb2, event_pb2, session_pb2
from stationmaster_client import Client
from stationmaster_client.errors import FailedPrecondition

from tests.agents.claude.conftest import KEY
from tests.agents.claude.conversation import MODEL, READ, WRITE, asked, command_lines
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import End, StandIn
from tests.fixtures.server import ServerProcess, StartServer
from tests.waiting import until

SPEC = agent_pb2.AgentSpec(runtime=agent_pb2.RUNTIME_CLAUDE, model=MODEL, tools=["files.*"])
PATIENCE = 60.0


@asynccontextmanager
async def serving(
    start: StartServer, database_url: str, provider: StandIn, folder: Path
) -> AsyncIterator[tuple[ServerProcess, Client]]:
    """A server whose provider of Anthropic's models is ours."""
    environment = {
        "STATIONMASTER_MODELS__ANTHROPIC__API_KEY": KEY,
        "STATIONMASTER_MODELS__ANTHROPIC__BASE_URL": provider.url,
        "STATIONMASTER_WORK__LEASE": "1s",
    }
    server = await start(database_url=database_url, folder=folder, environment=environment)
    async with Client.connect(server.target, server.admin_key) as client:
        yield server, client


async def gone(processes: list[psutil.Process]) -> None:
    """Wait until these processes have ended."""

    async def ended() -> bool:
        return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)

    await until(ended, seconds=PATIENCE)


async def pending(client: Client, session: str) -> list[str]:
    """The names of the requests that wait."""
    return [request.name async for request in client.permissions.list(session, filter="state = PENDING")]


async def test_a_session_with_its_permissions_and_its_end(
    server_process: StartServer, database_url: str, provider: StandIn, data_folder: Path
) -> None:
    provider.reply(
        anthropic.answer(anthropic.text("I write."), anthropic.tool(WRITE, {"path": "a", "content": "1"}, "toolu_1")),
        anthropic.answer(anthropic.tool(WRITE, {"path": "b", "content": "2"}, "toolu_2")),
        anthropic.answer(anthropic.tool(READ, {"path": "a"}, "toolu_3")),
        anthropic.answer(anthropic.text("Done.")),
        anthropic.answer(anthropic.text("Yes.")),
    )
    async with serving(server_process, database_url, provider, data_folder) as (server, client):
        session = await client.sessions.create(spec=SPEC)
        states = []
        async with client.sessions.send(session.name, "write it") as events:
            async for event in events:
                if event.HasField("permission_requested"):
                    (name,) = await pending(client, session.name)
                    await gone(command_lines(of=server.pid))
                    await client.permissions.allow(name, for_session=True)
                states.append(event.WhichOneof("payload"))
                if event.HasField("turn_finished"):
                    assert event.turn_finished.state == event_pb2.TURN_STATE_COMPLETED
        assert states.count("permission_requested") == 1
        assert states.count("tool_call_finished") == 3
        assert (await client.sessions.ask(session.name, "really?")).text == "Yes."
        assert asked(provider)[-1] == ("user", "really?")
        assert [who for who, text in asked(provider) if text == "write it"] == ["user"]
        (process,) = command_lines(of=server.pid)
        await client.sessions.terminate(session.name)
        await gone([process])


async def test_no_command_line_outlives_its_server(
    server_process: StartServer, database_url: str, provider: StandIn, data_folder: Path
) -> None:
    before = command_lines()
    async with serving(server_process, database_url, provider, data_folder) as (server, client):
        provider.reply(anthropic.answer(anthropic.text("Hi.")))
        session = await client.sessions.create(spec=SPEC)
        assert (await client.sessions.ask(session.name, "hello")).text == "Hi."
        idle = command_lines(of=server.pid)
        provider.reply(anthropic.cut(anthropic.text("Hel"), anthropic.text("x"), end=End.HANG))
        busy_session = await client.sessions.create(spec=SPEC)
        async with client.sessions.send(busy_session.name, "hello") as events:
            async for event in events:
                if event.HasField("text_delta"):
                    break
        everything = psutil.Process(server.pid).children(recursive=True)
        assert len(command_lines(of=server.pid)) == 2
        await server.kill()
        await gone(everything)
    provider.replies.clear()
    provider.reply(*[anthropic.answer(anthropic.text("Whole."))] * 2)
    async with serving(server_process, database_url, provider, data_folder) as (server, client):

        async def whole() -> bool:
            messages = [message async for message in client.sessions.messages(busy_session.name)]
            return bool(messages) and messages[-1].parts[-1].text == "Whole."

        await until(whole, seconds=PATIENCE)
        assert (await client.sessions.ask(session.name, "and now?")).text == "Whole."
        assert asked(provider) == [("user", "hello"), ("assistant", "Hi."), ("user", "and now?")]
        everything = psutil.Process(server.pid).children(recursive=True)
        assert len(command_lines(of=server.pid)) == 2
        assert await server.stop() == 0
        await gone(everything)
    assert idle
    assert command_lines() == before
    assert not list((data_folder / "claude").iterdir())


async def test_cancelling_keeps_what_was_said(
    server_process: StartServer, database_url: str, provider: StandIn, data_folder: Path
) -> None:
    provider.reply(anthropic.cut(anthropic.text("Half an", " answer"), anthropic.text(""), end=End.HANG))
    async with serving(server_process, database_url, provider, data_folder) as (server, client):
        session = await client.sessions.create(spec=SPEC)
        said = ""
        async with client.sessions.send(session.name, "hello") as events:
            async for event in events:
                said += event.text_delta.text
                if said == "Half an answer":
                    said += "."
                    await client.sessions.cancel(event.turn)
                if event.HasField("turn_finished"):
                    assert event.turn_finished.state == event_pb2.TURN_STATE_CANCELLED
        messages = [message async for message in client.sessions.messages(session.name)]
        assert [part.text for part in messages[-1].parts] == ["Half an answer"]
        assert messages[-1].interrupted
        assert (await client.sessions.get(session.name)).state == session_pb2.SESSION_STATE_ACTIVE
        assert command_lines(of=server.pid) == []


async def test_what_the_runtime_cannot_do_is_refused_at_once(
    server_process: StartServer, database_url: str, provider: StandIn, data_folder: Path
) -> None:
    async with serving(server_process, database_url, provider, data_folder) as (_, client):
        other_model = agent_pb2.AgentSpec(runtime=SPEC.runtime, model="demo")
        temperature = agent_pb2.AgentSpec(runtime=SPEC.runtime, model=MODEL, temperature=0.5)
        for why, spec in (("provider anthropic", other_model), ("temperature", temperature)):
            with pytest.raises(FailedPrecondition, match=why):
                await client.sessions.create(spec=spec)


async def test_a_session_asks_with_the_key_of_its_agents_credential(
    server_process: StartServer, database_url: str, provider: StandIn, data_folder: Path
) -> None:
    """The server has none itself. What the credential holds when a turn runs counts, also for a process that waits."""
    first, second = "sk-own-first-0123456789", "own.second.0123456789"
    environment = {"STATIONMASTER_MODELS__ANTHROPIC__BASE_URL": provider.url}
    server = await server_process(database_url=database_url, folder=data_folder, environment=environment)
    async with Client.connect(server.target, server.admin_key) as client:
        await client.credentials.create("anthropic", first)
        spec = agent_pb2.AgentSpec(runtime=SPEC.runtime, model=MODEL, credential="credentials/anthropic")
        await client.agents.create("helper", spec)
        with pytest.raises(FailedPrecondition):
            await client.agents.create("keyless", SPEC)
        provider.reply(*[anthropic.answer(anthropic.text("Hi."))] * 2)
        session = (await client.sessions.create("helper")).name
        assert (await client.sessions.ask(session, "hello")).text == "Hi."
        (process,) = command_lines(of=server.pid)
        assert first not in str(process.environ())
        await client.credentials.rotate("anthropic", second)
        assert (await client.sessions.ask(session, "again")).text == "Hi."
        assert command_lines(of=server.pid) == [process]
        assert [request.headers["x-api-key"] for request in provider.requests] == [first, second]
        provider.reply(*[anthropic.failure(400, "invalid_request_error", f"I do not like {second}, no")] * 9)
        assert "I do not like ***, no" in await finished(client, session)
        provider.replies.clear()
        provider.reply(*[anthropic.failure(401, "authentication_error", f"what is {second}?")] * 9)
        assert "refuses the key of the credential" in await finished(client, session)
        assert {request.headers["x-api-key"] for request in provider.requests[2:]} == {second}
        asked_so_often = len(provider.requests)
        await client.credentials.delete("anthropic")
        assert "credentials/anthropic is deleted" in await finished(client, session)
        assert len(provider.requests) == asked_so_often
        told = [event async for event in client.audit.list(filter='action = "credential.access"')]
        assert {event.details["used_by"] for event in told} == {session}
        assert len(told) == 5
    kept = b"".join(file.read_bytes() for file in (data_folder / "claude").rglob("*") if file.is_file())
    assert second.encode() not in kept


async def finished(client: Client, session: str) -> str:
    """How a turn ended."""
    async with client.sessions.send(session, "well?") as events:
        return str([event.turn_finished async for event in events if event.HasField("turn_finished")])


@pytest.mark.long
async def test_a_server_that_stops_within_an_answer_leaves_it_to_the_next(
    server_process: StartServer, database_url: str, provider: StandIn, data_folder: Path
) -> None:
    provider.reply(anthropic.cut(anthropic.text("Hel"), anthropic.text("x"), end=End.HANG))
    async with serving(server_process, database_url, provider, data_folder) as (server, client):
        session = await client.sessions.create(spec=SPEC)
        async with client.sessions.send(session.name, "hello") as events:
            async for event in events:
                if event.HasField("text_delta"):
                    break
        everything = psutil.Process(server.pid).children(recursive=True)
        assert command_lines(of=server.pid)
        assert await server.stop() == 0
        await gone(everything)
    provider.reply(anthropic.answer(anthropic.text("Whole.")))
    async with serving(server_process, database_url, provider, data_folder) as (_, client):

        async def whole() -> bool:
            messages = [message async for message in client.sessions.messages(session.name)]
            return bool(messages) and messages[-1].parts[-1].text == "Whole."

        await until(whole, seconds=PATIENCE)
        assert asked(provider) == [("user", "hello")]
