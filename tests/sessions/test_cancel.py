"""Cancelling a turn."""

from __future__ import annotations

from time import monotonic

import pytest
from stationmaster_server.agents.runtime import Text, ToolResult
from stationmaster_server.errors import FailedPrecondition, Reason
from stationmaster_server.sessions.model import MessageRole, PermissionState, SessionState, TurnState

from tests.sessions.station import Station, text_of

SLOW = "/slow 20\n/say 2000"


async def test_cancel_stops_the_model_and_keeps_the_partial_text(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, SLOW)
    await station.running(session_id, started)
    began = monotonic()
    await station.turns.cancel(station.caller, session_id, started.turn_id)
    events = await station.events(session_id, started)
    assert monotonic() - began < 5, "a cancel is meant to take a second at most; five allow for a busy machine"
    assert events[-1].body["state"] == "CANCELLED"
    partial = (await station.messages(session_id))[-1]
    assert partial.interrupted
    assert partial.parts == (Text(text_of(events)),)
    assert (await station.session(session_id)).state is SessionState.ACTIVE


async def test_cancel_reaches_the_server_that_runs_the_turn(
    station: Station,
    other_station: Station,
) -> None:
    session_id = await station.create()
    started = await station.send(session_id, SLOW)
    await station.running(session_id, started)
    await other_station.turns.cancel(other_station.caller, session_id, started.turn_id)
    assert (await other_station.ended(session_id, started)).state is TurnState.CANCELLED


async def test_cancelling_a_turn_that_waits_for_permission_withdraws_the_request(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, '/tool files.write {"path": "a.txt", "content": "a"}')
    await station.asked(session_id)
    turn = await station.turns.cancel(station.caller, session_id, started.turn_id)
    assert turn.state is TurnState.CANCELLED
    events = await station.events(session_id, started)
    resolved = [event for event in events if event.kind == "permission_resolved"]
    assert [event.body["state"] for event in resolved] == [PermissionState.WITHDRAWN]
    newest = (await station.messages(session_id))[-1]
    assert newest.role is MessageRole.TOOL
    assert isinstance(newest.parts[0], ToolResult)
    assert newest.parts[0].is_error, "a model accepts no call without a result"
    assert (await station.session(session_id)).state is SessionState.ACTIVE
    assert (await station.run(session_id, "/say 2"))[-1].body["state"] == "COMPLETED"


async def test_a_queued_turn_that_is_cancelled_never_runs(station: Station) -> None:
    session_id = await station.create()
    running = await station.send(session_id, "/slow 5\n/say 100")
    queued = await station.send(session_id, "/say 1")
    assert (await station.turns.cancel(station.caller, session_id, queued.turn_id)).state is TurnState.CANCELLED
    assert (await station.ended(session_id, running)).state is TurnState.COMPLETED
    assert [message.turn_id for message in await station.messages(session_id)] == [running.turn_id] * 2


async def test_a_turn_that_has_ended_cannot_be_cancelled(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, "/say 1")
    await station.ended(session_id, started)
    with pytest.raises(FailedPrecondition) as refused:
        await station.turns.cancel(station.caller, session_id, started.turn_id)
    assert refused.value.reason is Reason.TURN_FINISHED
