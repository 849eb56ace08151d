"""Sending a message: the events of its turn, to its end, over whatever happens to the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from stationmaster.v1 import event_pb2, session_pb2
from stationmaster_client import Client, errors

from tests.client.stand_in import SESSION, TURN, delta, finished, sent, serving, unavailable, watched

OTHER_TURN = f"{SESSION}/turns/01890000-0000-7000-8000-000000000009"


async def test_a_message_that_was_never_answered_is_sent_again_under_its_request_id() -> None:
    ids: list[str] = []

    async def send(
        request: session_pb2.SendMessageRequest, context: Any
    ) -> AsyncIterator[session_pb2.SendMessageResponse]:
        ids.append(request.request_id)
        if len(ids) == 1:
            yield sent(turn=TURN)
            await unavailable(context)
        yield sent(delta(4), finished(5), turn=TURN)

    async with (
        serving(SendMessage=send) as target,
        Client.connect(target) as client,
        client.sessions.send(SESSION, "hello") as events,
    ):
        assert [event.sequence async for event in events] == [4, 5]
        assert events.turn == TURN
    assert len(ids) == 2
    assert len(set(ids)) == 1


async def test_a_broken_turn_goes_on_by_watching_the_session_after_the_last_event() -> None:
    watches: list[int] = []

    async def send(
        request: session_pb2.SendMessageRequest, context: Any
    ) -> AsyncIterator[session_pb2.SendMessageResponse]:
        yield sent(delta(4), delta(5), turn=TURN)
        await unavailable(context)

    async def watch(
        request: session_pb2.WatchSessionRequest, context: Any
    ) -> AsyncIterator[session_pb2.WatchSessionResponse]:
        watches.append(request.after_sequence)
        yield watched(delta(6), finished(7, OTHER_TURN))
        if len(watches) == 1:
            await unavailable(context)
        yield watched(delta(8), finished(9), delta(10, OTHER_TURN))

    async with (
        serving(SendMessage=send, WatchSession=watch) as target,
        Client.connect(target) as client,
        client.sessions.send(SESSION, "hello") as events,
    ):
        assert [event.sequence async for event in events] == [4, 5, 6, 8, 9]
    assert watches == [5, 7]


async def test_a_stream_that_stops_at_a_permission_ends_there() -> None:
    asked = event_pb2.Event(sequence=5, turn=TURN, permission_requested=event_pb2.PermissionRequested())

    async def send(
        request: session_pb2.SendMessageRequest, context: Any
    ) -> AsyncIterator[session_pb2.SendMessageResponse]:
        yield sent(delta(4), asked, turn=TURN)

    async with (
        serving(SendMessage=send) as target,
        Client.connect(target) as client,
        client.sessions.send(SESSION, "hello", stop_at_permission=True) as events,
    ):
        assert [event.sequence async for event in events] == [4, 5]


async def test_ask_answers_with_the_last_message_of_the_model() -> None:
    def said(sequence: int, role: event_pb2.MessageRole.ValueType, text: str) -> event_pb2.Event:
        message = event_pb2.Message(role=role, parts=[event_pb2.MessagePart(text=text)])
        added = event_pb2.MessageAdded(message=message)
        return event_pb2.Event(sequence=sequence, turn=TURN, message_added=added)

    async def send(
        request: session_pb2.SendMessageRequest, context: Any
    ) -> AsyncIterator[session_pb2.SendMessageResponse]:
        yield sent(said(1, event_pb2.MESSAGE_ROLE_USER, "hello"), turn=TURN)
        yield sent(said(2, event_pb2.MESSAGE_ROLE_ASSISTANT, "good day"), finished(3))

    async with serving(SendMessage=send) as target, Client.connect(target) as client:
        reply = await client.sessions.ask(SESSION, "hello")
    assert (reply.text, reply.turn, reply.last_sequence) == ("good day", TURN, 3)


async def test_a_refused_message_raises() -> None:
    async def send(
        request: session_pb2.SendMessageRequest, context: Any
    ) -> AsyncIterator[session_pb2.SendMessageResponse]:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "busy")
        yield sent()

    async with serving(SendMessage=send) as target, Client.connect(target) as client:
        with pytest.raises(errors.FailedPrecondition):
            await client.sessions.ask(SESSION, "hello")
