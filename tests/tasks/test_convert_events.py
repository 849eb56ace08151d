"""Every kind of event that an execution's stream has reaches its readers, with all of its fields."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from stationmaster.v1 import event_pb2 as pb
from stationmaster_server.events.model import Event, NewEvent
from stationmaster_server.tasks import events
from stationmaster_server.tasks.convert_events import events_to_proto
from stationmaster_server.tasks.model import ExecutionState, Progress

AT = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
STREAM = UUID(int=7)
ALL = [
    events.state_changed(ExecutionState.QUEUED, 1, "TOLD", "it failed", retry_at=AT),
    events.progress(Progress(0.5, "half", {"pages": 3})),
    events.log("hello", "warning"),
]


def read(new: NewEvent) -> pb.Event:
    """The event as a reader gets it."""
    (message,) = events_to_proto([Event(STREAM, 42, new.kind, new.body, AT)])
    return message


def test_every_kind_of_event_of_executions_has_a_builder() -> None:
    kinds = {field.name for field in pb.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert {event.kind for event in ALL} == {kind for kind in kinds if kind.startswith("execution_")}


@pytest.mark.parametrize("new", ALL, ids=lambda new: new.kind)
def test_no_field_of_an_event_is_forgotten(new: NewEvent) -> None:
    message = read(new)
    assert (message.sequence, message.create_time.ToDatetime(UTC)) == (42, AT)
    payload = getattr(message, new.kind)
    assert {field.name for field, _ in payload.ListFields()} == set(payload.DESCRIPTOR.fields_by_name)


def test_a_kind_that_a_newer_server_wrote_has_no_payload() -> None:
    assert read(NewEvent("execution_of_tomorrow", {})).WhichOneof("payload") is None
