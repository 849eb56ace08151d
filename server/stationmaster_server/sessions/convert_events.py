"""Events of the log as messages of event.proto. Deltas are the hottest path of a stream: one constructor each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from stationmaster.v1 import event_pb2 as pb

from stationmaster_server.agents.runtime import Part, Text, Thinking, ToolCall, ToolResult, Usage
from stationmaster_server.events.model import Event
from stationmaster_server.sessions.message_json import (
    call_from_json,
    parts_from_json,
    provenance_from_json,
    result_from_json,
    usage_from_json,
)
from stationmaster_server.sessions.model import (
    Breach,
    Message,
    MessageRole,
    PermissionState,
    Provenance,
    TurnState,
    message_name,
    session_name,
)
from stationmaster_server.wire.fields import duration, struct, timestamp

TURN_STATES = {state: pb.TurnState.Value(f"TURN_STATE_{state}") for state in TurnState}
PERMISSION_STATES = {state: pb.PermissionState.Value(f"PERMISSION_STATE_{state}") for state in PermissionState}
_ROLES = {role: pb.MessageRole.Value(f"MESSAGE_ROLE_{role}") for role in MessageRole}
PART_BYTES = 1024 * 1024
_MICROSECOND = timedelta(microseconds=1)

Body = Mapping[str, Any]


def events_to_proto(events: Sequence[Event]) -> list[pb.Event]:
    """Committed events of one stream as messages; what neighbours share is made once.

    A kind that a newer server wrote, and this one does not know, has no payload.
    """
    if not events:
        return []
    messages: list[pb.Event] = []
    session_id = events[0].stream_id
    turns = f"sessions/{session_id}/turns/"
    time, stamp = None, None
    for event in events:
        body = event.body
        if event.created_at != time:
            time = event.created_at
            stamp = timestamp(time)
        turn = body.get("turn")
        name = turns + turn if turn else ""
        if event.kind == "text_delta":
            delta = pb.TextDelta(text=body["text"], step=body["step"])
            messages.append(pb.Event(sequence=event.sequence, create_time=stamp, turn=name, text_delta=delta))
        else:
            message = pb.Event(sequence=event.sequence, create_time=stamp, turn=name)
            payload = _PAYLOADS.get(event.kind)
            if payload is not None:
                getattr(message, event.kind).CopyFrom(payload(session_id, body))
            messages.append(message)
    return messages


def parts_of(events: Sequence[pb.Event], last_sequence: int) -> Iterator[tuple[Sequence[pb.Event], int]]:
    """A batch as parts of about 1 MiB, of one event at least, each with the sequence to resume after.

    Bounded by bytes too, because a stream with a message that its reader cannot take cannot be read past it.
    """
    begin, size = 0, 0
    if len(events) > 1:
        for index, event in enumerate(events):
            more = event.ByteSize()
            if size and size + more > PART_BYTES:
                yield events[begin:index], events[index - 1].sequence
                begin, size = index, 0
            size += more
    yield events[begin:] if begin else events, last_sequence


def _session_created(session_id: UUID, body: Body) -> pb.SessionCreated:
    parent = body.get("parent_session")
    return pb.SessionCreated(parent_session=f"sessions/{parent}" if parent else "")


def _session_state_changed(session_id: UUID, body: Body) -> pb.SessionStateChanged:
    return pb.SessionStateChanged(from_state=body["from_state"], to_state=body["to_state"], reason=body["reason"])


def _turn_finished(session_id: UUID, body: Body) -> pb.TurnFinished:
    return pb.TurnFinished(
        state=TURN_STATES[body["state"]],
        reason=body["reason"],
        message=body["message"],
        usage=usage_to_proto(usage_from_json(body["usage"])),
    )


def message_added_to_proto(session_id: UUID, body: Body) -> pb.MessageAdded:
    """A message that was added."""
    return pb.MessageAdded(message=message_to_proto(_message(session_id, body)))


def _message(session_id: UUID, body: Body) -> Message:
    """The message that `message_json.message_to_json` wrote into a body."""
    document = body["message"]
    provenance, replaces = document.get("provenance"), document.get("replaces")
    return Message(
        session_id=session_id,
        number=document["number"],
        turn_id=UUID(body["turn"]) if "turn" in body else None,
        role=MessageRole(document["role"]),
        parts=parts_from_json(document["parts"]),
        created_at=datetime.fromisoformat(document["created_at"]),
        interrupted=document.get("interrupted", False),
        provenance=None if provenance is None else provenance_from_json(provenance),
        first_delta=replaces["first_sequence"] if replaces else 0,
        last_delta=replaces["last_sequence"] if replaces else 0,
    )


def _answer_restarted(session_id: UUID, body: Body) -> pb.AnswerRestarted:
    return pb.AnswerRestarted(replaces=pb.SequenceRange(**body["replaces"]), step=body["step"])


def _tool_call_progress(session_id: UUID, body: Body) -> pb.ToolCallProgress:
    return pb.ToolCallProgress(call_id=body["call_id"], fraction=body.get("fraction"), message=body["message"])


def _tool_call_finished(session_id: UUID, body: Body) -> pb.ToolCallFinished:
    result = result_to_proto(result_from_json(body["result"]))
    return pb.ToolCallFinished(result=result, duration=duration(body["duration_us"] * _MICROSECOND))


def _permission_requested(session_id: UUID, body: Body) -> pb.PermissionRequested:
    expires_at = body.get("expires_at")
    return pb.PermissionRequested(
        permission_request=_permission(session_id, body),
        call=call_to_proto(call_from_json(body["call"])) if "call" in body else None,
        limit=_limit_reached(session_id, body["limit"]) if "limit" in body else None,
        expire_time=timestamp(datetime.fromisoformat(expires_at)) if expires_at else None,
    )


def _permission_resolved(session_id: UUID, body: Body) -> pb.PermissionResolved:
    return pb.PermissionResolved(
        permission_request=_permission(session_id, body),
        state=PERMISSION_STATES[body["state"]],
        resolved_by=f"users/{body['resolved_by']}" if body["resolved_by"] else "system",
        message=body["message"],
    )


def _permission(session_id: UUID, body: Body) -> str:
    return f"{session_name(session_id)}/permissionRequests/{body['permission_request']}"


def _limit_reached(session_id: UUID, body: Body) -> pb.LimitReached:
    return pb.LimitReached(limit=body["limit"], limit_value=body["limit_value"], used_value=body["used_value"])


def _mcp_message(session_id: UUID, body: Body) -> pb.McpMessage:
    return pb.McpMessage(
        mcp_server=f"mcpServers/{body['server']}",
        call_id=body["call_id"],
        level=body["level"],
        logger=body["logger"],
        text=body["text"],
    )


_PAYLOADS: dict[str, Callable[[UUID, Body], Any]] = {
    "session_created": _session_created,
    "session_state_changed": _session_state_changed,
    "session_updated": lambda _, body: pb.SessionUpdated(paths=body["paths"]),
    "turn_queued": lambda _, body: pb.TurnQueued(position=body["position"]),
    "turn_started": lambda _, body: pb.TurnStarted(attempt=body["attempt"], resumed=body["resumed"]),
    "turn_finished": _turn_finished,
    "message_added": message_added_to_proto,
    "thinking_delta": lambda _, body: pb.ThinkingDelta(text=body["text"], step=body["step"]),
    "answer_restarted": _answer_restarted,
    "tool_call_started": lambda _, body: pb.ToolCallStarted(call=call_to_proto(call_from_json(body["call"]))),
    "tool_call_progress": _tool_call_progress,
    "tool_call_finished": _tool_call_finished,
    "permission_requested": _permission_requested,
    "permission_resolved": _permission_resolved,
    "limit_reached": _limit_reached,
    "mcp_message": _mcp_message,
}


def breach_to_proto(breach: Breach) -> pb.LimitReached:
    """A limit that a turn is about to break."""
    return pb.LimitReached(limit=breach.limit, limit_value=breach.limit_value, used_value=breach.used_value)


def message_to_proto(message: Message) -> pb.Message:
    """A stored message as its protobuf message."""
    replaces = None
    if message.first_delta:
        replaces = pb.SequenceRange(first_sequence=message.first_delta, last_sequence=message.last_delta)
    session = session_name(message.session_id)
    return pb.Message(
        name=message_name(message.session_id, message.number),
        role=_ROLES[message.role],
        parts=[_part_to_proto(part) for part in message.parts],
        turn=f"{session}/turns/{message.turn_id}" if message.turn_id else "",
        create_time=timestamp(message.created_at),
        interrupted=message.interrupted,
        provenance=None if message.provenance is None else _provenance_to_proto(message.provenance),
        replaces=replaces,
    )


def _part_to_proto(part: Part) -> pb.MessagePart:
    match part:
        case Text():
            return pb.MessagePart(text=part.text)
        case Thinking():
            return pb.MessagePart(thinking=part.text)
        case ToolCall():
            return pb.MessagePart(tool_call=call_to_proto(part))
        case ToolResult():
            return pb.MessagePart(tool_result=result_to_proto(part))


def call_to_proto(call: ToolCall) -> pb.ToolCall:
    """A tool call as its message."""
    return pb.ToolCall(call_id=call.call_id, tool=call.tool, arguments=struct(call.arguments))


def result_to_proto(result: ToolResult) -> pb.ToolResult:
    """A tool's answer as its message."""
    return pb.ToolResult(call_id=result.call_id, tool=result.tool, content=result.content, is_error=result.is_error)


def usage_to_proto(usage: Usage) -> pb.Usage:
    """What was used as its message."""
    return pb.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cost_micros=usage.cost_micros,
        cost_estimated=usage.cost_estimated,
        model_calls=usage.model_calls,
        tool_calls=usage.tool_calls,
        running_time=duration(usage.running_time) if usage.running_time else None,
    )


def _provenance_to_proto(provenance: Provenance) -> pb.Provenance:
    audit_event = provenance.audit_event_id
    return pb.Provenance(
        model=provenance.model,
        usage=usage_to_proto(provenance.usage),
        latency=duration(provenance.latency),
        first_token_latency=duration(provenance.first_token_latency),
        prompt_version=provenance.prompt_version,
        prompt_variant=provenance.prompt_variant,
        audit_event=f"auditEvents/{audit_event}" if audit_event else "",
    )
