"""Sessions, turns, messages and permission requests: what they are and which changes of state there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from stationmaster_server.agents.model import AgentSpec, Limits, OnPermissionTimeout, ToolPolicy
from stationmaster_server.agents.runtime import Part, ToolCall, Usage
from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason
from stationmaster_server.identity.model import owner_scope as owner_scope  # of sessions, too


class SessionState(StrEnum):
    """How a session stands."""

    ACTIVE = "ACTIVE"
    PROCESSING = "PROCESSING"
    AWAITING_PERMISSION = "AWAITING_PERMISSION"
    PAUSED = "PAUSED"
    TERMINATED = "TERMINATED"
    ARCHIVED = "ARCHIVED"


_S = SessionState
TRANSITIONS: Mapping[SessionState, frozenset[SessionState]] = {
    _S.ACTIVE: frozenset({_S.PROCESSING, _S.PAUSED, _S.TERMINATED}),
    _S.PROCESSING: frozenset({_S.ACTIVE, _S.AWAITING_PERMISSION, _S.PAUSED, _S.TERMINATED}),
    _S.AWAITING_PERMISSION: frozenset({_S.PROCESSING, _S.ACTIVE, _S.PAUSED, _S.TERMINATED}),
    _S.PAUSED: frozenset({_S.ACTIVE, _S.TERMINATED}),
    _S.TERMINATED: frozenset({_S.ARCHIVED}),
    _S.ARCHIVED: frozenset(),
}
BUSY = frozenset({_S.PROCESSING, _S.AWAITING_PERMISSION})
CLOSED = frozenset({_S.PAUSED, _S.TERMINATED, _S.ARCHIVED})
ENDED = frozenset({_S.TERMINATED, _S.ARCHIVED})


def transition(session_name: str, current: SessionState, wanted: SessionState) -> SessionState:
    """The one function that decides about a change of state; returns the state wanted.

    Raises:
        FailedPrecondition: ILLEGAL_TRANSITION, naming both states.
    """
    if wanted in TRANSITIONS[current]:
        return wanted
    raise illegal_transition(session_name, current, wanted)


def illegal_transition(session_name: str, current: SessionState, wanted: SessionState) -> FailedPrecondition:
    """The refusal of a change of state; it says which ones there are."""
    allowed = ", ".join(sorted(TRANSITIONS[current])) or "none: it has ended"
    error = FailedPrecondition(
        Reason.ILLEGAL_TRANSITION,
        f"{session_name} is {current} and cannot become {wanted}",
        PreconditionViolation("SESSION_STATE", session_name, f"from {current} these states can be reached: {allowed}"),
    )
    error.metadata = {"from": str(current), "to": str(wanted)}
    return error


class TurnState(StrEnum):
    """How a turn ended, or that it has not."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    AWAITING_PERMISSION = "AWAITING_PERMISSION"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    INTERRUPTED = "INTERRUPTED"
    FAILED = "FAILED"
    LIMITED = "LIMITED"
    ROLLED_BACK = "ROLLED_BACK"


OPEN_TURNS = frozenset({TurnState.QUEUED, TurnState.RUNNING, TurnState.AWAITING_PERMISSION})


class BusyPolicy(StrEnum):
    """What happens to a message while the session is busy."""

    QUEUE = "QUEUE"
    REJECT = "REJECT"
    INTERRUPT = "INTERRUPT"
    ROLLBACK = "ROLLBACK"


class RecoveryPolicy(StrEnum):
    """What happens to a turn whose server died. DEFAULT: resume where no tool call was in flight, else interrupt."""

    DEFAULT = "DEFAULT"
    RESUME = "RESUME"
    INTERRUPT = "INTERRUPT"


class MessageRole(StrEnum):
    """Who a message is from."""

    USER = "USER"
    ASSISTANT = "ASSISTANT"
    TOOL = "TOOL"
    SYSTEM = "SYSTEM"


class PermissionState(StrEnum):
    """How a permission request stands."""

    PENDING = "PENDING"
    ALLOWED = "ALLOWED"
    DENIED = "DENIED"
    EXPIRED = "EXPIRED"
    WITHDRAWN = "WITHDRAWN"


class PermissionDecision(StrEnum):
    """How a permission request is answered."""

    ALLOW_ONCE = "ALLOW_ONCE"
    ALLOW_FOR_SESSION = "ALLOW_FOR_SESSION"
    DENY = "DENY"


class ToolCallState(StrEnum):
    """How far a tool call is. RUNNING after a crash means: it was in flight."""

    RUNNING = "RUNNING"
    DONE = "DONE"


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation. `last_sequence` is its stream's newest event; `etag` changes with its updatable fields."""

    id: UUID
    user_id: UUID
    display_name: str
    state: SessionState
    state_reason: str
    agent_id: str
    spec: AgentSpec
    tool_policies: tuple[ToolPolicy, ...]
    limits: Limits
    labels: dict[str, str]
    idle_timeout: timedelta | None
    parent_session_id: UUID | None
    parent_message: int | None
    granted_tools: tuple[str, ...]
    portions: Mapping[str, int]
    """Of its limits: how many times somebody allowed as much once more."""
    usage: Usage
    message_count: int
    last_sequence: int
    current_turn_id: UUID | None
    etag: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a caller asks for: the name of an agent, or a specification of its own."""

    display_name: str = ""
    agent_id: str = ""
    spec: AgentSpec | None = None
    tool_policies: tuple[ToolPolicy, ...] = ()
    limits: Limits = field(default_factory=Limits)
    labels: Mapping[str, str] | None = None
    idle_timeout: timedelta | None = None
    prompt_variables: str = "{}"
    """A JSON object, as text: values for the prompt of the specification, over its own."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of the user, and all that is done to answer it."""

    id: UUID
    session_id: UUID
    state: TurnState
    user_message: int
    recovery: RecoveryPolicy
    reason: str
    error_message: str
    usage: Usage
    attempts: int
    step: int
    first_sequence: int
    last_sequence: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    prompt_version: str = ""
    """While it runs here: what its instructions come from, which its messages tell."""
    prompt_variant: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a turn ends; `reason` is an ErrorReason's name or what somebody said, `message` the same for people.

    `final`: the same turn would fail again.
    """

    state: TurnState
    reason: str = ""
    message: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True)
class Partial:
    """What an answer that is not whole has brought, and the sequences of its deltas (0: none)."""

    text: str = ""
    first_delta: int = 0
    last_delta: int = 0


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a message of the model."""

    model: str
    usage: Usage
    latency: timedelta
    first_token_latency: timedelta
    prompt_version: str = ""
    prompt_variant: str = ""
    audit_event_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `number` counts from 1 in its session.

    `first_delta` to `last_delta` are the sequences of the deltas that it stands for; 0 means none.
    """

    session_id: UUID
    number: int
    turn_id: UUID | None
    role: MessageRole
    parts: tuple[Part, ...]
    created_at: datetime
    interrupted: bool = False
    provenance: Provenance | None = None
    first_delta: int = 0
    last_delta: int = 0


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A message that matches a search; more score is better."""

    message: Message
    snippet: str
    score: float


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit by its name, its value, and what would be used."""

    limit: str
    limit_value: int
    used_value: int

    @property
    def of_quota(self) -> bool:
        """Whether it is a quota, which no answer lifts."""
        return "/" in self.limit

    @property
    def of_session(self) -> bool:
        """Whether it limits the whole session."""
        return self.limit.endswith("_per_session") or self.limit == "max_session_duration"

    @property
    def reason(self) -> Reason:
        """Why a turn ends that breaks it."""
        return Reason.QUOTA_EXCEEDED if self.of_quota else Reason.LIMIT_REACHED

    def __str__(self) -> str:
        return f"{self.limit} is {self.limit_value}; {self.used_value} would have been used"


@dataclass(frozen=True, slots=True)
class PermissionRequest:
    """A tool call that waits, or waited, for somebody's permission; with `breach` the turn, at a limit."""

    id: UUID
    session_id: UUID
    turn_id: UUID
    call: ToolCall
    state: PermissionState
    decision: PermissionDecision | None
    message: str
    edited_arguments: dict[str, Any] | None
    resolved_by: UUID | None
    on_timeout: OnPermissionTimeout
    created_at: datetime
    resolved_at: datetime | None
    expires_at: datetime | None
    breach: Breach | None = None


def session_name(session_id: UUID) -> str:
    """`sessions/{id}`."""
    return f"sessions/{session_id}"


def turn_name(session_id: UUID, turn_id: UUID) -> str:
    """`sessions/{session}/turns/{turn}`."""
    return f"sessions/{session_id}/turns/{turn_id}"


def permission_name(session_id: UUID, request_id: UUID) -> str:
    """`sessions/{session}/permissionRequests/{id}`."""
    return f"sessions/{session_id}/permissionRequests/{request_id}"


def message_name(session_id: UUID, number: int) -> str:
    """`sessions/{session}/messages/{n}`."""
    return f"sessions/{session_id}/messages/{number}"
