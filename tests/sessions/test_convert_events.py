"""Events: every kind of event.proto has a builder, and what a builder says reaches the reader."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from stationmaster.v1 import event_pb2 as pb
from stationmaster_server.agents.model import OnPermissionTimeout
from stationmaster_server.agents.runtime import Part, Text, Thinking, ToolCall, ToolResult, Usage
from stationmaster_server.db.ids import new_id
from stationmaster_server.events.model import Event, NewEvent
from stationmaster_server.sessions import events
from stationmaster_server.sessions.convert_events import events_to_proto, message_to_proto
from stationmaster_server.sessions.message_json import (
    message_to_json,
    parts_from_json,
    parts_to_json,
    provenance_from_json,
    provenance_to_json,
    usage_from_json,
    usage_to_json,
)
from stationmaster_server.sessions.model import (
    Breach,
    Ending,
    Message,
    MessageRole,
    PermissionRequest,
    PermissionState,
    Provenance,
    RecoveryPolicy,
    SessionState,
    Turn,
    TurnState,
)

SESSION, TURN, REQUEST, USER = new_id(), new_id(), new_id(), new_id()
AT = datetime(2026, 11, 5, 12, 30, 15, 123456, tzinfo=UTC)
CALL = ToolCall("call-1", "files.write", {"path": "a.txt", "lines": [1, 2.5, None, True], "deep": {"x": "é\0"}})
RESULT = ToolResult("call-1", "files.write", "no", is_error=True)
USAGE = Usage(10, 20, 5, 300, cost_estimated=True, model_calls=2, tool_calls=1)
PROVENANCE = Provenance(
    "demo", USAGE, timedelta(milliseconds=1500), timedelta(milliseconds=20), "prompts/p/versions/3", "b", new_id()
)
MESSAGE = Message(
    session_id=SESSION,
    number=7,
    turn_id=TURN,
    role=MessageRole.ASSISTANT,
    parts=(Text("hello"), Thinking("hm", "signature"), CALL, RESULT),
    created_at=AT,
    interrupted=True,
    provenance=PROVENANCE,
    first_delta=3,
    last_delta=9,
)
TURN_OF = Turn(TURN, SESSION, TurnState.RUNNING, 1, RecoveryPolicy.DEFAULT, "", "", USAGE, 1, 1, 1, 0, AT, AT, None)
ASKED = PermissionRequest(
    id=REQUEST,
    session_id=SESSION,
    turn_id=TURN,
    call=CALL,
    state=PermissionState.PENDING,
    decision=None,
    message="",
    edited_arguments=None,
    resolved_by=None,
    on_timeout=OnPermissionTimeout.DENY,
    created_at=AT,
    resolved_at=None,
    expires_at=AT + timedelta(hours=1),
)
DENIED = replace(ASKED, state=PermissionState.DENIED, resolved_by=USER, message="not now")

ALL = [
    events.session_created(SESSION),
    events.session_state_changed(SessionState.ACTIVE, SessionState.PAUSED, "lunch"),
    events.session_updated(["spec", "labels"]),
    events.turn_queued(TURN, 2),
    events.turn_started(TURN, 2, resumed=True),
    events.turn_finished(TURN_OF, Ending(TurnState.FAILED, "MODEL_UNAVAILABLE", "away", final=True)),
    events.message_added(MESSAGE),
    events.text_delta(TURN, 3, "hel"),
    events.thinking_delta(TURN, 3, "hm"),
    events.answer_restarted(TURN, 3, 5, 8),
    events.tool_call_started(TURN, CALL),
    events.tool_call_progress(TURN, "call-1", 0.5, "half"),
    events.tool_call_finished(TURN, RESULT, timedelta(milliseconds=250)),
    events.permission_requested(ASKED),
    events.permission_resolved(DENIED),
    events.limit_reached(TURN, Breach("max_tokens_per_turn", 100, 120)),
    events.mcp_message(TURN, "everything", "warning", "low on steam", call_id="c1", logger="boiler"),
]


def read(new: NewEvent) -> pb.Event:
    """What a reader gets of an event that was stored and read back."""
    (message,) = events_to_proto([Event(SESSION, 42, new.kind, json.loads(json.dumps(new.body)), AT)])
    return message


def test_every_kind_of_event_has_a_builder() -> None:
    kinds = {field.name for field in pb.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}

    assert {event.kind for event in ALL} == {kind for kind in kinds if not kind.startswith("execution_")}


@pytest.mark.parametrize("new", ALL, ids=lambda new: new.kind)
def test_an_event_reaches_the_reader_as_its_kind_with_sequence_time_and_turn(new: NewEvent) -> None:
    message = read(new)

    assert message.WhichOneof("payload") == new.kind
    assert message.sequence == 42
    assert message.create_time.ToDatetime(UTC) == AT
    about_a_turn = not new.kind.startswith("session_")
    assert message.turn == (f"sessions/{SESSION}/turns/{TURN}" if about_a_turn else "")


@pytest.mark.parametrize("new", ALL, ids=lambda new: new.kind)
def test_no_field_of_an_event_is_forgotten(new: NewEvent) -> None:
    payload = getattr(read(new), new.kind)

    set_fields = {field.name for field, _ in payload.ListFields()}

    either = {"limit"} if new.kind == "permission_requested" else set()
    assert set_fields == {field.name for field in payload.DESCRIPTOR.fields} - either


def test_a_request_about_a_limit_has_the_limit_and_no_call() -> None:
    asked = read(events.permission_requested(replace(ASKED, breach=Breach("max_tokens_per_turn", 100, 120))))
    assert not asked.permission_requested.HasField("call")
    assert asked.permission_requested.limit == pb.LimitReached(
        limit="max_tokens_per_turn", limit_value=100, used_value=120
    )


def test_what_the_builders_say_is_what_the_reader_gets() -> None:
    got = {new.kind: MessageToDict(getattr(read(new), new.kind), preserving_proto_field_name=True) for new in ALL}

    assert got["session_created"] == {"parent_session": f"sessions/{SESSION}"}
    assert got["session_state_changed"] == {"from_state": "ACTIVE", "to_state": "PAUSED", "reason": "lunch"}
    assert got["session_updated"] == {"paths": ["labels", "spec"]}
    assert got["turn_finished"]["state"] == "TURN_STATE_FAILED"
    assert got["turn_finished"]["usage"]["cost_micros"] == "300"
    assert got["text_delta"] == {"text": "hel", "step": 3}
    assert got["answer_restarted"]["replaces"] == {"first_sequence": "5", "last_sequence": "8"}
    assert got["tool_call_finished"]["duration"] == "0.250s"
    assert got["permission_requested"]["permission_request"] == f"sessions/{SESSION}/permissionRequests/{REQUEST}"
    assert got["permission_requested"]["call"]["arguments"]["lines"] == [1.0, 2.5, None, True]
    assert got["permission_resolved"]["resolved_by"] == f"users/{USER}"
    assert got["limit_reached"] == {"limit": "max_tokens_per_turn", "limit_value": "100", "used_value": "120"}


def test_a_message_in_an_event_equals_the_message_in_a_list() -> None:
    assert read(events.message_added(MESSAGE)).message_added.message == message_to_proto(MESSAGE)


def test_nobody_in_particular_resolved_what_expired() -> None:
    expired = read(events.permission_resolved(replace(ASKED, state=PermissionState.EXPIRED)))

    assert expired.permission_resolved.resolved_by == "system"


def test_progress_without_a_fraction_has_none() -> None:
    progress = read(events.tool_call_progress(TURN, "call-1", None, "working")).tool_call_progress

    assert not progress.HasField("fraction")


def test_an_event_of_a_newer_server_keeps_its_place() -> None:
    message = read(NewEvent("something_new", {"turn": str(TURN)}))

    assert message.WhichOneof("payload") is None
    assert message.sequence == 42


def test_only_deltas_of_one_answer_merge() -> None:
    first, second = events.text_delta(TURN, 1, "a"), events.text_delta(TURN, 1, "b")

    assert first.merge_key == second.merge_key is not None
    assert events.text_delta(TURN, 2, "a").merge_key != first.merge_key
    assert events.text_delta(UUID(int=0), 1, "a").merge_key != first.merge_key
    assert all(new.merge_key is None for new in ALL if new.kind not in events.DELTAS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, st.text()),
    st.builds(Thinking, st.text(), st.text()),
    st.builds(ToolCall, st.text(), st.text(), st.dictionaries(st.text(), JSON, max_size=3)),
    st.builds(ToolResult, st.text(), st.text(), st.text(), st.booleans()),
)


@given(st.lists(PARTS, max_size=5).map(tuple))
def test_parts_survive_json(parts: tuple[Part, ...]) -> None:
    assert parts_from_json(json.loads(json.dumps(parts_to_json(parts)))) == parts


@given(st.builds(Usage))
def test_usage_survives_json(usage: Usage) -> None:
    assert usage_from_json(json.loads(json.dumps(usage_to_json(usage)))) == usage


def test_provenance_survives_json() -> None:
    assert provenance_from_json(json.loads(json.dumps(provenance_to_json(PROVENANCE)))) == PROVENANCE


def test_a_plain_message_says_nothing_that_it_is_not() -> None:
    plain = replace(MESSAGE, interrupted=False, provenance=None, first_delta=0, last_delta=0)

    assert set(message_to_json(plain)) == {"number", "role", "parts", "created_at"}
    assert not message_to_proto(plain).HasField("provenance")
    assert not message_to_proto(plain).HasField("replaces")
