"""A turn from its message to its end, and what happens to a message while the session is busy."""

from __future__ import annotations

import asyncio

import pytest
from stationmaster_server.agents.runtime import Text, ToolCall, ToolResult
from stationmaster_server.errors import FailedPrecondition, Reason, ResourceExhausted
from stationmaster_server.sessions.model import BusyPolicy, MessageRole, PermissionDecision, SessionState, TurnState
from stationmaster_server.sessions.permissions import Answer
from stationmaster_server.sessions.turns import MAX_QUEUED_TURNS

from tests.sessions.builders import repeating
from tests.sessions.station import Station, kinds, text_of

SLOW = "/slow 20\n/say 2000"


async def test_a_turn_streams_its_answer_and_leaves_the_session_active(station: Station) -> None:
    session_id = await station.create()
    events = await station.run(session_id, "/say 50")
    assert kinds(events) == [
        "message_added",
        "session_state_changed",
        "turn_started",
        "text_delta",
        "message_added",
        "session_state_changed",
        "turn_finished",
    ]
    assert events[-1].body["state"] == "COMPLETED"
    assert [event.sequence for event in events] == list(range(events[0].sequence, events[0].sequence + len(events)))
    session = await station.session(session_id)
    assert (session.state, session.current_turn_id, session.message_count) == (SessionState.ACTIVE, None, 2)


async def test_the_message_is_its_deltas_and_names_their_sequences(station: Station) -> None:
    session_id = await station.create()
    events = await station.run(session_id, "/say 200")
    _, answer = await station.messages(session_id)
    assert answer.role is MessageRole.ASSISTANT
    assert answer.parts == (Text(text_of(events)),)
    deltas = [event.sequence for event in events if event.kind == "text_delta"]
    assert (answer.first_delta, answer.last_delta) == (deltas[0], deltas[-1])


async def test_every_message_links_what_made_it(station: Station) -> None:
    session_id = await station.create()
    await station.run(session_id, "/say 20")
    _, answer = await station.messages(session_id)
    assert answer.provenance is not None
    assert answer.provenance.model
    assert answer.provenance.usage.output_tokens == 20
    assert answer.provenance.audit_event_id is not None
    session = await station.session(session_id)
    assert session.usage.output_tokens == 20
    assert session.usage.model_calls == 1


async def test_tools_work_on_the_files_of_the_workspace(station: Station) -> None:
    session_id = await station.create()
    (station.workspaces.path(session_id) / "notes.txt").write_text("forty-two")
    events = await station.run(session_id, '/tool files.read {"path": "notes.txt"}')
    assert "tool_call_started" in kinds(events)
    messages = await station.messages(session_id)
    assert [message.role for message in messages] == [
        MessageRole.USER,
        MessageRole.ASSISTANT,
        MessageRole.TOOL,
        MessageRole.ASSISTANT,
    ]
    call, result = messages[1].parts[-1], messages[2].parts[0]
    assert isinstance(call, ToolCall)
    assert isinstance(result, ToolResult)
    assert call.call_id == result.call_id
    assert "forty-two" in result.content


async def test_a_provider_that_refuses_fails_the_turn_and_frees_the_session(station: Station) -> None:
    session_id = await station.create()
    events = await station.run(session_id, "/say 5\n/fail auth")
    assert events[-1].body["state"] == "FAILED"
    assert events[-1].body["message"]
    session = await station.session(session_id)
    assert session.state is SessionState.ACTIVE


async def test_a_provider_that_refuses_at_once_has_used_nothing(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, "/fail auth")
    turn = await station.ended(session_id, started)
    assert turn.state is TurnState.FAILED
    assert turn.usage.total_tokens == 0


async def test_a_repeated_request_follows_the_turn_that_the_first_one_started(station: Station) -> None:
    session_id = await station.create()
    station.caller = repeating(station.caller)
    first = await station.send(session_id, "/say 3")
    again = await station.send(session_id, "/say 3")
    assert again == first
    station.caller = repeating(station.caller, b"other")
    await station.events(session_id, first)
    assert (await station.session(session_id)).message_count == 2


async def test_queued_messages_run_in_their_order_and_none_is_lost(station: Station) -> None:
    session_id = await station.create()
    started = [await station.send(session_id, f"/slow 1\n/say {count}") for count in (30, 31, 32, 33)]
    turns = [await station.ended(session_id, each) for each in started]
    assert [turn.state for turn in turns] == [TurnState.COMPLETED] * 4
    messages = await station.messages(session_id)
    assert [message.role for message in messages] == [MessageRole.USER, MessageRole.ASSISTANT] * 4
    said = [message.parts[0] for message in messages if message.role is MessageRole.ASSISTANT]
    assert [len(part.text.split()) for part in said if isinstance(part, Text)] == [30, 31, 32, 33]


async def test_of_racing_sends_that_reject_a_busy_session_exactly_one_wins(station: Station) -> None:
    session_id = await station.create()
    answers = await asyncio.gather(
        *(station.send(session_id, SLOW, busy=BusyPolicy.REJECT) for _ in range(10)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, FailedPrecondition)]
    assert len(refused) == 9
    assert {error.reason for error in refused} == {Reason.SESSION_BUSY}


async def test_interrupt_keeps_the_partial_work_and_runs_the_new_message(station: Station) -> None:
    session_id = await station.create()
    first = await station.send(session_id, SLOW)
    await station.running(session_id, first)
    second = await station.send(session_id, "/say 4", busy=BusyPolicy.INTERRUPT)
    assert (await station.ended(session_id, second)).state is TurnState.COMPLETED
    assert (await station.turn(session_id, first)).state is TurnState.CANCELLED
    messages = await station.messages(session_id)
    assert [(message.role, message.interrupted) for message in messages] == [
        (MessageRole.USER, False),
        (MessageRole.ASSISTANT, True),
        (MessageRole.USER, False),
        (MessageRole.ASSISTANT, False),
    ]


async def test_rollback_drops_the_turn_and_runs_the_new_message(station: Station) -> None:
    session_id = await station.create()
    await station.run(session_id, "/say 2")
    first = await station.send(session_id, SLOW)
    await station.running(session_id, first)
    second = await station.send(session_id, "/say 4", busy=BusyPolicy.ROLLBACK)
    assert (await station.ended(session_id, second)).state is TurnState.COMPLETED
    assert (await station.turn(session_id, first)).state is TurnState.ROLLED_BACK
    turns = [message.turn_id for message in await station.messages(session_id)]
    assert first.turn_id not in turns
    assert len(turns) == 4


@pytest.mark.parametrize("state", [SessionState.PAUSED, SessionState.TERMINATED])
async def test_a_session_that_is_stopped_cancels_its_turn_and_takes_no_message(
    station: Station, state: SessionState
) -> None:
    session_id = await station.create()
    running = await station.send(session_id, SLOW)
    queued = await station.send(session_id, "/say 1")
    await station.running(session_id, running)
    stop = station.sessions.pause if state is SessionState.PAUSED else station.sessions.terminate
    await stop(station.caller, session_id, "enough")
    assert (await station.ended(session_id, running)).state is TurnState.CANCELLED
    assert (await station.turn(session_id, queued)).state is TurnState.CANCELLED
    assert (await station.session(session_id)).state is state
    with pytest.raises(FailedPrecondition) as refused:
        await station.send(session_id, "/say 1")
    assert refused.value.reason is Reason.SESSION_CLOSED


async def test_a_conversation_on_one_server_is_watched_live_on_another(
    station: Station,
    other_station: Station,
) -> None:
    session_id = await station.create()
    started = await station.send(session_id, "/slow 2\n/say 100")
    here, there = await asyncio.gather(station.events(session_id, started), other_station.events(session_id, started))
    assert here == there


async def test_a_queued_turn_may_ask_whatever_the_clocks_said(station: Station) -> None:
    session_id = await station.create()
    running = await station.send(session_id, "/slow 5\n/say 60")
    asking = await station.send(session_id, '/tool files.write {"path": "a.txt", "content": "a"}')
    later = await station.send(session_id, "/say 1")
    async with station.database.system() as tx:
        # As if the turn that was sent last had come from a host whose clock is behind.
        behind = "UPDATE turns SET created_at = created_at - interval '1 hour' WHERE id = $1"
        await tx.execute(behind, later.turn_id)
    await station.ended(session_id, running)
    (request,) = await station.asked(session_id)
    assert request.turn_id == asking.turn_id
    await station.permissions.resolve(station.caller, session_id, request.id, Answer(PermissionDecision.ALLOW_ONCE))
    assert (await station.ended(session_id, asking)).state is TurnState.COMPLETED
    assert (await station.ended(session_id, later)).state is TurnState.COMPLETED


async def test_only_so_many_messages_wait_in_one_session(station: Station) -> None:
    session_id = await station.create()
    await station.send(session_id, SLOW)
    for _ in range(MAX_QUEUED_TURNS):
        await station.send(session_id, "/say 1")
    with pytest.raises(ResourceExhausted) as refused:
        await station.send(session_id, "/say 1")
    assert refused.value.reason is Reason.QUEUE_FULL
    await station.sessions.terminate(station.caller, session_id, "enough")


async def test_a_session_is_resumed_only_when_its_turn_has_stopped(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, SLOW)
    await station.running(session_id, started)
    await station.sessions.pause(station.caller, session_id, "lunch")
    await station.ended(session_id, started)
    await station.sessions.resume(station.caller, session_id)
    assert (await station.run(session_id, "/say 2"))[-1].body["state"] == "COMPLETED"
    roles = [message.role for message in await station.messages(session_id)]
    assert roles == [MessageRole.USER, MessageRole.ASSISTANT] * 2
