"""Every error the product raises on purpose; `rpc/errors.py` turns each into one gRPC status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Reason(StrEnum):
    """Why a call failed, for programs. Equal to the proto enum `ErrorReason` (a test holds them together)."""

    INVALID_FIELD = "INVALID_FIELD"
    INVALID_NAME = "INVALID_NAME"
    INVALID_FILTER = "INVALID_FILTER"
    INVALID_ORDER_BY = "INVALID_ORDER_BY"
    INVALID_UPDATE_MASK = "INVALID_UPDATE_MASK"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    UNKNOWN_METHOD = "UNKNOWN_METHOD"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    CONCURRENT_CHANGE = "CONCURRENT_CHANGE"
    CREDENTIALS_MISSING = "CREDENTIALS_MISSING"
    CREDENTIALS_INVALID = "CREDENTIALS_INVALID"
    CREDENTIALS_EXPIRED = "CREDENTIALS_EXPIRED"
    CREDENTIALS_REVOKED = "CREDENTIALS_REVOKED"
    SCOPE_MISSING = "SCOPE_MISSING"
    ROLE_INSUFFICIENT = "ROLE_INSUFFICIENT"
    USER_DISABLED = "USER_DISABLED"
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    SESSION_BUSY = "SESSION_BUSY"
    SESSION_CLOSED = "SESSION_CLOSED"
    TURN_FINISHED = "TURN_FINISHED"
    PERMISSION_ALREADY_RESOLVED = "PERMISSION_ALREADY_RESOLVED"
    AGENT_IN_USE = "AGENT_IN_USE"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    RUNTIME_UNAVAILABLE = "RUNTIME_UNAVAILABLE"
    LIMIT_REACHED = "LIMIT_REACHED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    QUEUE_FULL = "QUEUE_FULL"
    SERVER_OVERLOADED = "SERVER_OVERLOADED"
    LEASE_LOST = "LEASE_LOST"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    SERVER_STOPPING = "SERVER_STOPPING"
    INTERNAL = "INTERNAL"
    MCP_SERVER_UNAVAILABLE = "MCP_SERVER_UNAVAILABLE"
    MCP_SERVER_FAULT = "MCP_SERVER_FAULT"
    MCP_CALL_UNCERTAIN = "MCP_CALL_UNCERTAIN"
    MCP_SESSION_CLOSED = "MCP_SESSION_CLOSED"
    TOOL_DENIED = "TOOL_DENIED"
    COMMAND_REFUSED = "COMMAND_REFUSED"
    ADDRESS_REFUSED = "ADDRESS_REFUSED"
    DEPENDENCY_CYCLE = "DEPENDENCY_CYCLE"
    DEPENDENCY_TOO_DEEP = "DEPENDENCY_TOO_DEEP"
    TASK_IN_USE = "TASK_IN_USE"
    NO_SCHEDULE = "NO_SCHEDULE"
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
    CREDENTIAL_EXPIRED = "CREDENTIAL_EXPIRED"
    CREDENTIAL_UNUSABLE = "CREDENTIAL_UNUSABLE"
    ACCESS_NOT_GRANTED = "ACCESS_NOT_GRANTED"
    ENCRYPTION_KEY_UNAVAILABLE = "ENCRYPTION_KEY_UNAVAILABLE"
    CREDENTIAL_DAMAGED = "CREDENTIAL_DAMAGED"
    ROTATION_NOT_READY = "ROTATION_NOT_READY"
    ENCRYPTION_KEY_IN_USE = "ENCRYPTION_KEY_IN_USE"
    PROMPT_CYCLE = "PROMPT_CYCLE"
    PROMPT_MISSING = "PROMPT_MISSING"
    PROMPT_IN_USE = "PROMPT_IN_USE"
    CHECKPOINT_PENDING = "CHECKPOINT_PENDING"
    CHECKPOINT_NOT_COSIGNED = "CHECKPOINT_NOT_COSIGNED"
    SERVICE_IS_ENGINE = "SERVICE_IS_ENGINE"
    SERVICE_HELD = "SERVICE_HELD"
    FILE_REFUSED = "FILE_REFUSED"
    NOT_EMPTY = "NOT_EMPTY"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    UPLOAD_OFFSET = "UPLOAD_OFFSET"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    STORAGE_FULL = "STORAGE_FULL"
    ARCHIVE_REFUSED = "ARCHIVE_REFUSED"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is wrong: its path (`session.display_name`) and what to write instead."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """A quota that is used up: its subject (`users/…`) and what would exceed it."""

    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """A state that forbids the call: its type (`SESSION_STATE`), subject (`sessions/…`) and what to do."""

    type: str
    subject: str
    description: str


class StationmasterError(Exception):
    """An error with a reason for programs and a message for people: what happened, on what, what to do next."""

    def __init__(self, reason: Reason, message: str, *, metadata: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata or {}

    def __reduce__(self) -> tuple[object, ...]:
        # Pickled as other exceptions are, its constructor would be called with the message alone.
        return _without_constructor, (type(self), self.args), self.__dict__


def _without_constructor(cls: type[StationmasterError], args: tuple[object, ...]) -> StationmasterError:
    return cls.__new__(cls, *args)


class InvalidArgument(StationmasterError):
    """The request is wrong whatever the state of the system; `violations` names the fields."""

    def __init__(self, reason: Reason, message: str, *violations: FieldViolation) -> None:
        super().__init__(reason, message)
        self.violations = violations

    @classmethod
    def field(cls, field: str, description: str, reason: Reason = Reason.INVALID_FIELD) -> InvalidArgument:
        """A single wrong field."""
        return cls(reason, f"{field}: {description}", FieldViolation(field, description))

    @classmethod
    def fields(cls, violations: Sequence[FieldViolation]) -> InvalidArgument:
        """Several wrong fields: the first ten are in the message, the first fifty in the violations."""
        text = "; ".join(f"{each.field}: {each.description}" for each in violations[:10])
        more = f" (and {len(violations) - 10} more)" if len(violations) > 10 else ""
        return cls(Reason.INVALID_FIELD, f"{text}{more}", *violations[:50])


class NotFound(StationmasterError):
    """The resource does not exist, or belongs to somebody else: the two answer alike (contract rule 10)."""

    def __init__(self, resource_type: str, name: str, advice: str = "") -> None:
        text = f"{resource_type} {name!r} was not found"
        super().__init__(Reason.RESOURCE_NOT_FOUND, f"{text}; {advice}" if advice else text)
        self.resource_type = resource_type
        self.resource_name = name


class AlreadyExists(StationmasterError):
    """A resource of this name exists."""

    def __init__(self, resource_type: str, name: str, message: str = "") -> None:
        super().__init__(Reason.RESOURCE_EXISTS, message or f"{resource_type} {name!r} exists already")
        self.resource_type = resource_type
        self.resource_name = name


class PermissionDenied(StationmasterError):
    """The caller may not do this. `audited`: whoever raised it has told the audit trail."""

    audited = False


class Unauthenticated(StationmasterError):
    """The caller is unknown."""


class FailedPrecondition(StationmasterError):
    """The state of the system forbids the call; `violations` says which state and what to do."""

    def __init__(self, reason: Reason, message: str, *violations: PreconditionViolation) -> None:
        super().__init__(reason, message)
        self.violations = violations


class Aborted(StationmasterError):
    """Somebody else changed the resource meanwhile: read it again and decide anew."""


def require_etag(name: str, current: str, given: str) -> None:
    """Raises Aborted(ETAG_MISMATCH) when a change was decided on what is no more; an empty etag asks for nothing."""
    if given and given != current:
        text = f"{name} was changed meanwhile: its etag is {current}, not {given}; read it again and decide anew"
        raise Aborted(Reason.ETAG_MISMATCH, text)


class ResourceExhausted(StationmasterError):
    """A quota, a rate or a bound is used up; `retry_after` says when to come again."""

    def __init__(self, reason: Reason, message: str, *violations: QuotaViolation, retry_after: timedelta) -> None:
        super().__init__(reason, message)
        self.violations = violations
        self.retry_after = retry_after

    @classmethod
    def too_many(cls, subject: str, text: str) -> ResourceExhausted:
        """There are as many as there may be of something: `text` tells of what, and what to do."""
        return cls(Reason.LIMIT_REACHED, text, QuotaViolation(subject, text), retry_after=timedelta(minutes=1))


class Unavailable(StationmasterError):
    """Something this server needs is away; the same call may succeed after `retry_after`."""

    def __init__(self, reason: Reason, message: str, *, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class DeadlineExceeded(StationmasterError):
    """The caller's deadline, or a limit of ours, passed before the work was done."""


class ProcessDied(StationmasterError):
    """The process that computed something for the call ended before it had a result; no other call was hurt."""


class RemoteError(Exception):
    """A function in a process of a pool raised what cannot be sent from there; this tells of it."""


class LeaseLost(Exception):
    """A worker's lease was taken over: it must stop and write nothing. Never leaves the server."""
