"""One builder for each kind of event: what the stream of a session says. `convert_events.py` makes messages of it.

A body is JSON: the fields of the kind's message in event.proto, and `turn`, the turn's id, where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.agents.runtime import OURS, ToolCall, ToolResult
from stationmaster_server.events.model import NewEvent
from stationmaster_server.sessions.message_json import (
    MICROSECOND,
    call_to_json,
    message_to_json,
    result_to_json,
    usage_to_json,
)
from stationmaster_server.sessions.model import Breach, Ending, Message, PermissionRequest, SessionState, Turn

__all__ = ["OURS"]

DELTAS = ("text_delta", "thinking_delta")


def session_created(parent_session_id: UUID | None = None) -> NewEvent:
    """The session was created, or forked from another."""
    return NewEvent("session_created", {"parent_session": str(parent_session_id)} if parent_session_id else {})


def session_state_changed(
    from_state: SessionState, to_state: SessionState, reason: str = "", *, turn_id: UUID | None = None
) -> NewEvent:
    """The session changed its state; `turn_id` when a turn did that."""
    body: dict[str, Any] = {"from_state": from_state.value, "to_state": to_state.value, "reason": reason}
    if turn_id is not None:
        body["turn"] = str(turn_id)
    return NewEvent("session_state_changed", body)


def session_updated(paths: Iterable[str]) -> NewEvent:
    """Fields of the session were changed."""
    return NewEvent("session_updated", {"paths": sorted(paths)})


def turn_queued(turn_id: UUID, position: int) -> NewEvent:
    """A turn waits behind `position` others."""
    return NewEvent("turn_queued", {"turn": str(turn_id), "position": position})


def turn_started(turn_id: UUID, attempt: int, *, resumed: bool) -> NewEvent:
    """A worker began, or resumed, a turn."""
    return NewEvent("turn_started", {"turn": str(turn_id), "attempt": attempt, "resumed": resumed})


def turn_finished(turn: Turn, ending: Ending) -> NewEvent:
    """A turn ended, having used `turn.usage`."""
    body = {
        "turn": str(turn.id),
        "state": ending.state.value,
        "reason": ending.reason,
        "message": ending.message,
        "usage": usage_to_json(turn.usage),
    } | ({"final": True} if ending.final else {})
    return NewEvent("turn_finished", body)


def message_added(message: Message) -> NewEvent:
    """A message is complete and stored."""
    body: dict[str, Any] = {"message": message_to_json(message)}
    if message.turn_id is not None:
        body["turn"] = str(message.turn_id)
    return NewEvent("message_added", body)


def text_delta(turn_id: UUID, step: int, text: str) -> NewEvent:
    """A piece of the answer's text."""
    return _delta("text_delta", turn_id, step, text)


def thinking_delta(turn_id: UUID, step: int, text: str) -> NewEvent:
    """A piece of the model's thinking."""
    return _delta("thinking_delta", turn_id, step, text)


def _delta(kind: str, turn_id: UUID, step: int, text: str) -> NewEvent:
    turn = str(turn_id)
    return NewEvent(kind, {"turn": turn, "step": step, "text": text}, merge_key=f"{turn}:{step}")


def answer_restarted(turn_id: UUID, step: int, first_delta: int, last_delta: int) -> NewEvent:
    """An answer is asked for again: the deltas of these sequences no longer count."""
    replaces = {"first_sequence": first_delta, "last_sequence": last_delta}
    return NewEvent("answer_restarted", {"turn": str(turn_id), "step": step, "replaces": replaces})


def tool_call_started(turn_id: UUID, call: ToolCall) -> NewEvent:
    """A tool call began, with the arguments that it runs with."""
    return NewEvent("tool_call_started", {"turn": str(turn_id), "call": call_to_json(call)})


def tool_call_progress(turn_id: UUID, call_id: str, fraction: float | None, message: str) -> NewEvent:
    """A tool call reports."""
    body: dict[str, Any] = {"turn": str(turn_id), "call_id": call_id, "message": message}
    if fraction is not None:
        body["fraction"] = fraction
    return NewEvent("tool_call_progress", body)


def tool_call_finished(turn_id: UUID, result: ToolResult, duration: timedelta) -> NewEvent:
    """A tool call ended."""
    body = {"turn": str(turn_id), "result": result_to_json(result), "duration_us": duration // MICROSECOND}
    return NewEvent("tool_call_finished", body)


def permission_requested(request: PermissionRequest) -> NewEvent:
    """A tool call, or the turn at a limit, waits for permission."""
    body: dict[str, Any] = {"turn": str(request.turn_id), "permission_request": str(request.id)}
    if request.breach is None:
        body["call"] = call_to_json(request.call)
    else:
        body["limit"] = _breach(request.breach)
    if request.expires_at is not None:
        body["expires_at"] = request.expires_at.isoformat()
    return NewEvent("permission_requested", body)


def permission_resolved(request: PermissionRequest) -> NewEvent:
    """A permission request was answered, expired or was withdrawn; without `resolved_by` the system did it."""
    body = {
        "turn": str(request.turn_id),
        "permission_request": str(request.id),
        "state": request.state.value,
        "resolved_by": str(request.resolved_by) if request.resolved_by else "",
        "message": request.message,
    }
    return NewEvent("permission_resolved", body)


def limit_reached(turn_id: UUID, breach: Breach) -> NewEvent:
    """A limit or quota stopped the turn."""
    return NewEvent("limit_reached", {"turn": str(turn_id), **_breach(breach)})


def _breach(breach: Breach) -> dict[str, Any]:
    return {"limit": breach.limit, "limit_value": breach.limit_value, "used_value": breach.used_value}


def mcp_message(turn_id: UUID, server: str, level: str, text: str, *, call_id: str = "", logger: str = "") -> NewEvent:
    """An MCP server says something, or something is said of it (`logger` is `stationmaster` then)."""
    body = {
        "turn": str(turn_id),
        "server": server,
        "call_id": call_id,
        "level": level,
        "logger": logger,
        "text": text,
    }
    return NewEvent("mcp_message", body)
