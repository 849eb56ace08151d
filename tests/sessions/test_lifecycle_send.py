"""SendMessage through the wire: the stream of a turn, and what happens when its reader goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import grpc
import pytest
import pytest_asyncio
from stationmaster.v1 import event_pb2
from stationmaster.v1 import session_pb2 as pb
from stationmaster_server.db.caller import Caller
from stationmaster_server.sessions.model import TurnState

from tests.sessions.served import serving
from tests.sessions.station import Station
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.session_pb2_grpc import SessionServiceAsyncStub

SLOW = "/slow 20\n/say 2000"
WRITE = '/tool files.write {"path": "a.txt", "content": "one"}'


@pytest_asyncio.fixture
async def stub(station: Station, caller: Caller) -> AsyncIterator[SessionServiceAsyncStub]:
    async with serving(
        caller, station.database, station.sessions, station.watching, station.turns, station.permissions
    ) as stub:
        yield stub


@pytest_asyncio.fixture
async def name(station: Station) -> str:
    """A session's name."""
    return f"sessions/{await station.create()}"


async def read(call: Any) -> list[pb.SendMessageResponse]:
    """The whole stream."""
    return [batch async for batch in call]


def events_of(batches: list[pb.SendMessageResponse]) -> list[event_pb2.Event]:
    return [event for batch in batches for event in batch.events]


async def test_a_message_streams_its_turn_to_the_end(stub: SessionServiceAsyncStub, name: str) -> None:
    batches = await read(stub.SendMessage(pb.SendMessageRequest(session=name, text="/say 5")))
    events = events_of(batches)

    turn = batches[0].turn
    assert turn.startswith(f"{name}/turns/")
    assert not any(batch.turn for batch in batches[1:])
    assert {event.turn for event in events} == {turn}
    assert events[-1].turn_finished.state == event_pb2.TURN_STATE_COMPLETED
    assert [event.sequence for event in events] == list(range(2, 2 + len(events)))
    answer = [event.message_added.message for event in events if event.WhichOneof("payload") == "message_added"][-1]
    deltas = "".join(event.text_delta.text for event in events if event.WhichOneof("payload") == "text_delta")
    assert answer.parts[0].text == deltas == "word1 word2 word3 word4 word5"
    assert answer.provenance.model == "demo"
    assert (await stub.GetTurn(pb.GetTurnRequest(name=turn))).state == event_pb2.TURN_STATE_COMPLETED


async def test_the_same_request_id_streams_the_same_turn_again(stub: SessionServiceAsyncStub, name: str) -> None:
    request = pb.SendMessageRequest(session=name, text="/say 5", request_id=str(uuid4()))

    first = events_of(await read(stub.SendMessage(request)))
    second = events_of(await read(stub.SendMessage(request)))

    assert second == first
    assert len((await stub.ListTurns(pb.ListTurnsRequest(parent=name))).turns) == 1


async def begun(call: Any) -> str:
    """Read until the first words have come; returns the turn's name."""
    turn = ""
    async for batch in call:
        turn = turn or batch.turn
        if any(event.WhichOneof("payload") == "text_delta" for event in batch.events):
            return turn
    raise AssertionError("the stream ended before the first words")


async def state_of(station: Station, turn: str) -> TurnState:
    _, session_id, _, turn_id = turn.split("/")
    return (await station.turns.get_turn(station.caller, UUID(session_id), UUID(turn_id))).state


async def test_a_reader_that_goes_away_cancels_nothing(
    station: Station, stub: SessionServiceAsyncStub, name: str
) -> None:
    call = stub.SendMessage(pb.SendMessageRequest(session=name, text="/slow 5\n/say 50"))
    turn = await begun(call)
    call.cancel()

    async def completed() -> bool:
        return await state_of(station, turn) is TurnState.COMPLETED

    await until(completed)


async def test_a_reader_that_goes_away_cancels_its_turn_if_it_asked_for_that(
    station: Station, stub: SessionServiceAsyncStub, name: str
) -> None:
    request = pb.SendMessageRequest(session=name, text=SLOW, on_disconnect=pb.ON_DISCONNECT_CANCEL)
    call = stub.SendMessage(request)
    turn = await begun(call)
    call.cancel()

    async def cancelled() -> bool:
        return await state_of(station, turn) is TurnState.CANCELLED

    await until(cancelled)
    messages = (await stub.ListMessages(pb.ListMessagesRequest(parent=name))).messages
    assert messages[-1].interrupted
    assert messages[-1].parts[0].text.startswith("word1")


async def test_a_deadline_that_passes_cancels_a_turn_whose_reader_asked_for_that(
    station: Station, stub: SessionServiceAsyncStub, name: str
) -> None:
    request = pb.SendMessageRequest(session=name, text=SLOW, on_disconnect=pb.ON_DISCONNECT_CANCEL)
    call = stub.SendMessage(request, timeout=1.5)
    turn = await begun(call)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def cancelled() -> bool:
        return await state_of(station, turn) is TurnState.CANCELLED

    await until(cancelled)


async def test_a_stream_that_broke_is_resumed_by_a_watch_without_a_gap_or_a_repeat(
    stub: SessionServiceAsyncStub, name: str
) -> None:
    call = stub.SendMessage(pb.SendMessageRequest(session=name, text="/slow 5\n/say 60"))
    seen: list[event_pb2.Event] = []
    async for batch in call:
        seen += batch.events
        if any(event.WhichOneof("payload") == "text_delta" for event in seen):
            break
    call.cancel()

    watch = stub.WatchSession(pb.WatchSessionRequest(name=name, after_sequence=seen[-1].sequence))
    async for update in watch:
        seen += update.events
        if any(event.WhichOneof("payload") == "turn_finished" for event in seen):
            break
    watch.cancel()

    assert [event.sequence for event in seen] == list(range(2, 2 + len(seen)))
    text = "".join(event.text_delta.text for event in seen)
    assert text.split()[-1] == "word60"


async def test_a_stream_stops_at_a_permission_if_asked_and_the_turn_waits(
    stub: SessionServiceAsyncStub, name: str
) -> None:
    request = pb.SendMessageRequest(session=name, text=WRITE, stop_at_permission=True)
    events = events_of(await read(stub.SendMessage(request)))

    asked = events[-2:] if events[-1].WhichOneof("payload") != "permission_requested" else events[-1:]
    permission = next(e.permission_requested for e in asked if e.WhichOneof("payload") == "permission_requested")
    session = await stub.GetSession(pb.GetSessionRequest(name=name))
    assert session.state == pb.SESSION_STATE_AWAITING_PERMISSION
    assert session.current_turn == events[0].turn
    listed = await stub.ListPermissionRequests(pb.ListPermissionRequestsRequest(parent="sessions/-"))
    assert [each.name for each in listed.permission_requests] == [permission.permission_request]

    answered = await stub.ResolvePermissionRequest(
        pb.ResolvePermissionRequestRequest(
            name=permission.permission_request, decision=pb.PERMISSION_DECISION_DENY, message="no"
        )
    )
    assert (answered.state, answered.message) == (event_pb2.PERMISSION_STATE_DENIED, "no")
    async for update in stub.WatchSession(pb.WatchSessionRequest(name=name, after_sequence=events[-1].sequence)):
        if any(event.WhichOneof("payload") == "turn_finished" for event in update.events):
            break


@pytest.mark.parametrize("state", ["pending", "NOPE", "SESSION_STATE_ACTIVE"])
async def test_a_state_that_there_is_not_is_no_filter_that_nothing_matches(
    stub: SessionServiceAsyncStub, name: str, state: str
) -> None:
    condition = f"state = {state}"
    for call in (
        stub.ListPermissionRequests(pb.ListPermissionRequestsRequest(parent=name, filter=condition)),
        stub.ListTurns(pb.ListTurnsRequest(parent=name, filter=condition)),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=r"at character 9: expected one of "):
            await call
    known = pb.ListTurnsRequest(parent=name, filter="state = COMPLETED")
    assert not (await stub.ListTurns(known)).turns


async def test_cancelling_and_pausing_stop_a_turn(stub: SessionServiceAsyncStub, name: str) -> None:
    call = stub.SendMessage(pb.SendMessageRequest(session=name, text=SLOW))
    turn = await begun(call)
    await stub.CancelTurn(pb.CancelTurnRequest(name=turn))
    rest = events_of(await read(call))
    assert rest[-1].turn_finished.state == event_pb2.TURN_STATE_CANCELLED

    call = stub.SendMessage(pb.SendMessageRequest(session=name, text=SLOW))
    await begun(call)
    paused = await stub.PauseSession(pb.PauseSessionRequest(name=name, reason="lunch"))
    rest = events_of(await read(call))
    assert rest[-1].turn_finished.state == event_pb2.TURN_STATE_CANCELLED
    assert paused.state == pb.SESSION_STATE_PAUSED
    session = await stub.GetSession(pb.GetSessionRequest(name=name))
    assert (session.state, session.state_reason, session.current_turn) == (pb.SESSION_STATE_PAUSED, "lunch", "")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(stub.SendMessage(pb.SendMessageRequest(session=name, text="/say 1")))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_termination_in_a_turn_ends_the_watch_only_after_the_turn(
    stub: SessionServiceAsyncStub, name: str
) -> None:
    call = stub.SendMessage(pb.SendMessageRequest(session=name, text=SLOW))
    await begun(call)
    watch = stub.WatchSession(pb.WatchSessionRequest(name=name))

    await stub.TerminateSession(pb.TerminateSessionRequest(name=name))
    kinds = [event.WhichOneof("payload") async for batch in watch for event in batch.events]

    assert kinds[-1] == "turn_finished"
    assert kinds.count("session_state_changed") == 2
