"""Events of executions as messages of event.proto."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster.v1 import event_pb2 as pb

from stationmaster_server.events.model import Event
from stationmaster_server.sessions.convert_events import message_added_to_proto
from stationmaster_server.tasks.model import Progress
from stationmaster_server.wire.fields import timestamp

Body = Mapping[str, Any]


def events_to_proto(events: Sequence[Event]) -> list[pb.Event]:
    """Committed events as messages. A kind that a newer server wrote, and this one does not know, has no payload."""
    return [_event(event) for event in events]


def _event(event: Event) -> pb.Event:
    message = pb.Event(sequence=event.sequence, create_time=timestamp(event.created_at))
    body = event.body
    match event.kind:
        case "execution_state_changed":
            message.execution_state_changed.CopyFrom(_state_changed(body))
        case "execution_progress":
            message.execution_progress.CopyFrom(progress_to_proto(progress_from_json(body)))
        case "execution_log":
            message.execution_log.CopyFrom(pb.ExecutionLog(level=body["level"], text=body["text"]))
        case "message_added":
            session_id = UUID(body["session"])
            message.turn = f"sessions/{session_id}/turns/{body['turn']}" if body.get("turn") else ""
            message.message_added.CopyFrom(message_added_to_proto(session_id, body))
    return message


def _state_changed(body: Body) -> pb.ExecutionStateChanged:
    retry_at = body.get("retry_at")
    return pb.ExecutionStateChanged(
        state=body["state"],
        attempt=body["attempt"],
        reason=body.get("reason", ""),
        message=body.get("message", ""),
        retry_time=timestamp(datetime.fromisoformat(retry_at)) if retry_at else None,
    )


def progress_from_json(body: Body) -> Progress:
    """Progress as events have it."""
    return Progress(body.get("fraction"), body.get("message", ""), body.get("counters", {}))


def progress_to_proto(progress: Progress) -> pb.ExecutionProgress:
    """How far an execution is, as its message."""
    return pb.ExecutionProgress(fraction=progress.fraction, message=progress.message, counters=progress.counters)
