"""The client against the real server: conversations, broken connections, and a server that is killed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from grpc import StatusCode, aio
from stationmaster.v1 import agent_pb2, event_pb2, identity_pb2, session_pb2
from stationmaster.v1.session_pb2_grpc import SessionServiceStub
from stationmaster_client import Client, SyncClient, errors

from tests.client.relay import relaying
from tests.fixtures.server import RunningServer, StartServer, serving

ASK_BEFORE_WRITING = agent_pb2.AgentSpec(
    model="demo",
    tools=["files.*", "math.evaluate"],
    tool_policies=[agent_pb2.ToolPolicy(pattern="files.write", effect=agent_pb2.TOOL_EFFECT_ASK)],
)


def words(events: list[event_pb2.Event]) -> str:
    return "".join(event.text_delta.text for event in events)


async def replay(client: Client, session: str) -> list[event_pb2.Event]:
    """The session's log, from the beginning to its newest event."""
    newest = (await client.sessions.get(session)).last_sequence
    events = []
    async with client.sessions.watch(session) as stream:
        async for event in stream:
            events.append(event)
            if event.sequence >= newest:
                break
    return events


async def test_a_conversation_calls_tools_and_asks_for_permission(server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        await client.agents.create("clerk", ASK_BEFORE_WRITING, display_name="A clerk")
        session = await client.sessions.create("clerk")
        kinds = []
        async with client.sessions.send(session.name, "write hello to notes.txt") as events:
            async for event in events:
                kinds.append(event.WhichOneof("payload"))
                if event.HasField("permission_requested"):
                    await client.permissions.allow(event.permission_requested.permission_request)
                    with pytest.raises(errors.FailedPrecondition) as second:
                        await client.permissions.deny(event.permission_requested.permission_request)
        assert second.value.reason == "PERMISSION_ALREADY_RESOLVED"
        assert kinds[-1] == "turn_finished"
        assert {"permission_requested", "permission_resolved", "tool_call_finished", "text_delta"} <= set(kinds)
        assert (await client.sessions.ask(session.name, "read notes.txt")).text.endswith("hello")
        turns = [turn.name async for turn in client.sessions.turns(session.name)]
        messages = [message.name async for message in client.sessions.messages(session.name, page_size=2)]
        assert (len(turns), len(messages)) == (2, 8)
        assert [event.sequence for event in await replay(client, session.name)] == list(
            range(1, (await client.sessions.get(session.name)).last_sequence + 1)
        )


async def test_both_clients_see_the_same(server: RunningServer) -> None:
    def use() -> tuple[str, Sequence[str | None], str]:
        with SyncClient.connect(server.target, server.admin_key) as client:
            session = client.sessions.create(model="demo")
            kinds = [event.WhichOneof("payload") for event in client.sessions.send(session.name, "/say 3")]
            with pytest.raises(errors.NotFound) as caught:
                client.sessions.get(session.name[:-4] + "0000")
            assert caught.value.request_id
            return session.name, kinds, client.whoami().user.name

    name, kinds, user = await asyncio.to_thread(use)
    async with Client.connect(server.target, server.admin_key) as client:
        assert (await client.whoami()).user.name == user
        turn = [event for event in await replay(client, name) if event.turn]
        assert [event.WhichOneof("payload") for event in turn] == kinds


async def test_what_the_server_refuses_is_raised_with_its_reason(server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        user = await client.users.create("Ann", identity_pb2.ROLE_VIEWER)
        key = await client.keys.create(user=user.name)
        with pytest.raises(errors.InvalidArgument) as invalid:
            await client.agents.create("No Id", ASK_BEFORE_WRITING)
        assert invalid.value.violations[0].subject == "agent_id"
        with pytest.raises(errors.NotFound) as missing:
            await client.agents.get("nobody")
        assert (missing.value.reason, missing.value.resource) == ("RESOURCE_NOT_FOUND", "agents/nobody")
        quota = identity_pb2.Quota(name=f"{user.name}/quota", max_concurrent_sessions=0)
        await client.quotas.set(quota, ["max_concurrent_sessions"])
    async with Client.connect(server.target, key.secret) as viewer:
        with pytest.raises(errors.PermissionDenied) as denied:
            await viewer.agents.create("clerk", ASK_BEFORE_WRITING)
        assert denied.value.metadata["scope"] == "agents.write"
    async with Client.connect(server.target, "sm_wrong") as stranger:
        with pytest.raises(errors.Unauthenticated):
            await stranger.whoami()


async def test_generated_stubs_on_the_clients_channel_carry_its_key(server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        sessions = SessionServiceStub(client.channel)
        spec = agent_pb2.AgentSpec(model="demo", tools=["math.*"])
        request = session_pb2.CreateSessionRequest(session=session_pb2.Session(spec=spec))
        session = await sessions.CreateSession(request)
        said = session_pb2.SendMessageRequest(session=session.name, text="what is 6*7")
        events = [event async for answer in sessions.SendMessage(said) for event in answer.events]
        assert "42" in words(events)
        nobody = (("authorization", "Bearer sm_nobody"),)
        with pytest.raises(aio.AioRpcError) as refused:
            await sessions.GetSession(session_pb2.GetSessionRequest(name=session.name), metadata=nobody)
        assert refused.value.code() is StatusCode.UNAUTHENTICATED, "a key that the call brings is the one that counts"
        other = client.on_behalf_of("sm_nobody")
        with pytest.raises(errors.Unauthenticated):
            await other.whoami()


async def test_a_connection_that_is_cut_in_the_middle_of_messages_loses_nothing(server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        session = await client.sessions.create(model="demo")
        await client.sessions.ask(session.name, "/slow 1\n/say 400")
        whole = await replay(client, session.name)
    assert len(whole) > 50
    async with (
        relaying(server.target, cut_after=9_000) as relay,
        Client.connect(relay.target, server.admin_key, insecure=True) as client,
        client.sessions.watch(session.name) as events,
    ):
        seen = [await anext(events) for _ in whole]
    assert relay.cuts > 1
    assert [event.SerializeToString(deterministic=True) for event in seen] == [
        event.SerializeToString(deterministic=True) for event in whole
    ]


async def test_a_turn_comes_whole_through_cut_connections(server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        session = await client.sessions.create(model="demo")
    async with (
        relaying(server.target, cut_after=9_000) as relay,
        Client.connect(relay.target, server.admin_key) as client,
        client.sessions.send(session.name, "/slow 2\n/say 400") as stream,
    ):
        events = [event async for event in stream]
    assert relay.cuts > 1
    assert words(events).split() == [f"word{number}" for number in range(1, 401)]
    async with Client.connect(server.target, server.admin_key) as client:
        said = [message async for message in client.sessions.messages(session.name, filter="role = USER")]
        assert len(said) == 1, "the message was not sent twice"


async def test_a_server_killed_in_the_middle_of_an_answer_loses_nothing(
    server_process: StartServer, database_url: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = {"STATIONMASTER_SERVER__PORT": port, "STATIONMASTER_WORK__LEASE": "2s"}
    first = await server_process(database_url=database_url, environment=settings)
    events: list[event_pb2.Event] = []
    restarted: asyncio.Task[None] | None = None

    async def restart() -> None:
        await first.kill()
        await serving(await server_process(database_url=database_url, environment=settings))

    async with Client.connect(first.target, first.admin_key) as client:
        session = await client.sessions.create(model="demo")
        async with client.sessions.send(session.name, "/slow 10\n/say 100") as stream:
            async for event in stream:
                events.append(event)
                if restarted is None and "word40" in event.text_delta.text:
                    before = words(events)
                    restarted = asyncio.create_task(restart())
        assert restarted is not None
        await restarted
        stored = await replay(client, session.name)
        messages = [message async for message in client.sessions.messages(session.name)]
    answer = messages[-1].parts[0].text
    assert events[-1].turn_finished.state == event_pb2.TURN_STATE_COMPLETED
    assert answer.startswith(before)
    assert answer.split() == [f"word{number}" for number in range(1, 101)]
    assert [event.sequence for event in stored] == list(range(1, len(stored) + 1))
    assert events == [event for event in stored if event.turn]


async def test_the_local_server_and_its_key_are_found_without_being_named(
    server_process: StartServer, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = await server_process(database_url=database_url)
    monkeypatch.setenv("STATIONMASTER_DATA_FOLDER", str(server.data_folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    async with Client.connect() as client:
        assert client.connection.target == server.target
        assert (await client.whoami()).user.display_name
