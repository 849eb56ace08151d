"""Sessions, turns and permission requests: protobuf to model and back."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from stationmaster.v1 import agent_pb2 as agent_pb
from stationmaster.v1 import session_pb2 as pb

from stationmaster_server.agents.convert import limits_from_proto, limits_to_proto, spec_from_proto, spec_to_proto
from stationmaster_server.agents.model import OnPermissionTimeout
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.identity.convert import policies_from_proto, policies_to_proto
from stationmaster_server.sessions.convert_events import (
    PERMISSION_STATES,
    TURN_STATES,
    breach_to_proto,
    call_to_proto,
    message_to_proto,
    usage_to_proto,
)
from stationmaster_server.sessions.model import (
    BusyPolicy,
    NewSession,
    PermissionDecision,
    PermissionRequest,
    RecoveryPolicy,
    SearchHit,
    Session,
    SessionState,
    Turn,
    message_name,
    permission_name,
    session_name,
    turn_name,
)
from stationmaster_server.sessions.permissions import Answer
from stationmaster_server.sessions.turns import SendRequest
from stationmaster_server.wire.fields import mapping, masked, span, struct, timestamp
from stationmaster_server.wire.names import parse

SESSION_NAME = "sessions/{session}"
UPDATABLE = frozenset({"display_name", "spec", "tool_policies", "limits", "labels", "idle_timeout"})

_STATES = {state: pb.SessionState.Value(f"SESSION_STATE_{state}") for state in SessionState}
_BUSY_POLICIES = {
    pb.BUSY_POLICY_UNSPECIFIED: BusyPolicy.QUEUE,
    **{pb.BusyPolicy.Value(f"BUSY_POLICY_{policy}"): policy for policy in BusyPolicy},
}
_RECOVERY_POLICIES = {
    pb.RECOVERY_POLICY_UNSPECIFIED: RecoveryPolicy.DEFAULT,
    pb.RECOVERY_POLICY_RESUME: RecoveryPolicy.RESUME,
    pb.RECOVERY_POLICY_INTERRUPT: RecoveryPolicy.INTERRUPT,
}
_RECOVERY_NUMBERS = {policy: number for number, policy in _RECOVERY_POLICIES.items()}
_DECISIONS = {pb.PermissionDecision.Value(f"PERMISSION_DECISION_{each}"): each for each in PermissionDecision}
_DECISION_NUMBERS: dict[PermissionDecision | None, pb.PermissionDecision.ValueType] = {
    decision: number for number, decision in _DECISIONS.items()
}
_ON_TIMEOUTS = {
    each: agent_pb.OnPermissionTimeout.Value(f"ON_PERMISSION_TIMEOUT_{each}") for each in OnPermissionTimeout
}


# Equal specifications are converted once; whoever takes the message copies it.
_spec_to_proto = lru_cache(maxsize=256)(spec_to_proto)
_limits_to_proto = lru_cache(maxsize=256)(limits_to_proto)


def session_to_proto(session: Session) -> pb.Session:
    """A session as its message."""
    name = session_name(session.id)
    parent = session.parent_session_id
    parent_message = message_name(parent, session.parent_message) if parent and session.parent_message else ""
    message = pb.Session(
        name=name,
        display_name=session.display_name,
        state=_STATES[session.state],
        agent=f"agents/{session.agent_id}" if session.agent_id else "",
        spec=_spec_to_proto(session.spec),
        tool_policies=policies_to_proto(session.tool_policies),
        limits=_limits_to_proto(session.limits),
        labels=session.labels,
        parent_session=session_name(parent) if parent else "",
        parent_message=parent_message,
        user=f"users/{session.user_id}",
        workspace=f"workspaces/{session.id}",
        usage=usage_to_proto(session.usage),
        message_count=session.message_count,
        last_sequence=session.last_sequence,
        current_turn=turn_name(session.id, session.current_turn_id) if session.current_turn_id else "",
        state_reason=session.state_reason,
        etag=session.etag,
        create_time=timestamp(session.created_at),
        update_time=timestamp(session.updated_at),
    )
    if session.idle_timeout is not None:
        message.idle_timeout.FromTimedelta(session.idle_timeout)
    return message


def new_session_from_proto(message: pb.Session) -> NewSession:
    """What a caller asks for; what only the server sets is not looked at."""
    return NewSession(
        display_name=message.display_name,
        agent_id=parse("agents/{agent}", message.agent, str, field="session.agent") if message.agent else "",
        spec=spec_from_proto(message.spec) if message.HasField("spec") else None,
        tool_policies=policies_from_proto(message.tool_policies),
        limits=limits_from_proto(message.limits),
        labels=dict(message.labels),
        idle_timeout=span(message, "idle_timeout"),
        prompt_variables=json.dumps(mapping(message.prompt_variables, "session.prompt_variables"), sort_keys=True),
    )


def changes_from_proto(request: pb.UpdateSessionRequest) -> dict[str, Any]:
    """The fields of `model.Session` that an update changes, with their new values. Raises InvalidArgument."""
    message = request.session
    paths = masked(request, UPDATABLE)
    if "spec" in paths and not message.HasField("spec"):
        raise InvalidArgument.field("session.spec", "is in the update_mask and missing: a session always has one")
    asked = new_session_from_proto(message)
    return {path: getattr(asked, path) for path in sorted(paths)}


def turn_to_proto(turn: Turn) -> pb.Turn:
    """A turn as its message."""
    return pb.Turn(
        name=turn_name(turn.session_id, turn.id),
        state=TURN_STATES[turn.state],
        user_message=message_name(turn.session_id, turn.user_message) if turn.user_message else "",
        reason=turn.reason,
        error_message=turn.error_message,
        usage=usage_to_proto(turn.usage),
        attempts=turn.attempts,
        recovery_policy=_RECOVERY_NUMBERS[turn.recovery],
        first_sequence=turn.first_sequence,
        last_sequence=turn.last_sequence,
        create_time=timestamp(turn.created_at),
        start_time=timestamp(turn.started_at),
        finish_time=timestamp(turn.finished_at),
    )


def hit_to_proto(hit: SearchHit) -> pb.SearchMessagesResponse.Hit:
    """A match of a search as its message."""
    message = message_to_proto(hit.message)
    return pb.SearchMessagesResponse.Hit(message=message, snippet=hit.snippet, score=hit.score)


def permission_to_proto(request: PermissionRequest) -> pb.PermissionRequest:
    """A permission request as its message."""
    edited = request.edited_arguments
    resolved_by = f"users/{request.resolved_by}" if request.resolved_by else "system"
    return pb.PermissionRequest(
        name=permission_name(request.session_id, request.id),
        turn=turn_name(request.session_id, request.turn_id),
        call=None if request.breach else call_to_proto(request.call),
        limit=breach_to_proto(request.breach) if request.breach else None,
        state=PERMISSION_STATES[request.state],
        decision=_DECISION_NUMBERS.get(request.decision, pb.PERMISSION_DECISION_UNSPECIFIED),
        message=request.message,
        edited_arguments=None if edited is None else struct(edited),
        resolved_by=resolved_by if request.resolved_at else "",
        on_timeout=_ON_TIMEOUTS[request.on_timeout],
        create_time=timestamp(request.created_at),
        resolve_time=timestamp(request.resolved_at),
        expire_time=timestamp(request.expires_at),
    )


def send_from_proto(request: pb.SendMessageRequest) -> SendRequest:
    """A message to send."""
    return SendRequest(
        text=request.text,
        busy_policy=_BUSY_POLICIES[request.busy_policy],
        recovery=_RECOVERY_POLICIES[request.recovery_policy],
    )


def answer_from_proto(request: pb.ResolvePermissionRequestRequest) -> Answer:
    """How somebody answers a permission request."""
    edited = mapping(request.edited_arguments, "edited_arguments") if request.HasField("edited_arguments") else None
    return Answer(decision=_DECISIONS[request.decision], message=request.message, edited_arguments=edited)
