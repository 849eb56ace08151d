"""Deltas of turns that have ended go, and every reader still gets what was said."""

from __future__ import annotations

from stationmaster.v1 import agent_pb2, event_pb2
from stationmaster_client import Client

from tests.fixtures.server import RunningServer

DELTAS = {"text_delta", "thinking_delta"}


async def said(client: Client, session: str, after: int = 0) -> list[event_pb2.Event]:
    """The session's events after a sequence."""
    last = (await client.sessions.get(session)).last_sequence
    events = []
    async with client.sessions.watch(session, after) as stream:
        async for event in stream:
            events.append(event)
            if event.sequence >= last:
                break
    return events


def kinds(events: list[event_pb2.Event]) -> set[str]:
    return {event.WhichOneof("payload") or "" for event in events}


async def test_deltas_of_turns_that_ended_are_deleted_and_messages_stand_for_them(server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        session = (await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo"))).name
        await client.sessions.ask(session, "tell me something of trains")
        before = await said(client, session)
        assert kinds(before) & DELTAS
        young = await client.maintenance.trigger("event-compaction", "compact", {"after_hours": 1})
        assert dict((await client.maintenance.wait(young.name)).result) == {"turns": 0, "deltas": 0}
        old = await client.maintenance.wait(
            (await client.maintenance.trigger("event-compaction", "compact", {"after_hours": 0})).name
        )
        deltas = [event for event in before if event.WhichOneof("payload") in DELTAS]
        assert dict(old.result) == {"turns": 1, "deltas": len(deltas)}
        after = await said(client, session)
        assert not kinds(after) & DELTAS
        assert after == [event for event in before if event not in deltas]
        messages = [event.message_added.message for event in after if event.HasField("message_added")]
        (answer,) = [message for message in messages if message.replaces.last_sequence]
        replaced = range(answer.replaces.first_sequence, answer.replaces.last_sequence + 1)
        assert all(event.sequence in replaced for event in deltas)
        middle = await said(client, session, after=deltas[0].sequence)
        assert middle == [event for event in after if event.sequence > deltas[0].sequence]
        again = await client.maintenance.trigger("event-compaction", "compact", {"after_hours": 0})
        assert dict((await client.maintenance.wait(again.name)).result) == {"turns": 0, "deltas": 0}
