"""Errors rebuilt from what the server sent: one class for each status code, with the reason for programs.

try:
    await client.sessions.get(name)
except errors.NotFound:
    ...
except errors.FailedPrecondition as error:
    if error.reason == "SESSION_BUSY":
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "stationmaster-request-id"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: a field's path, a quota's or a state's subject, and what to do about it."""

    subject: str
    description: str
    type: str = ""


class StationmasterError(Exception):
    """A call failed. `reason` is a name of `ErrorReason`; empty when the failure was not the server's own answer."""

    code = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: timedelta | None = None,
        resource: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata: Mapping[str, str] = metadata or {}
        self.violations = violations
        self.retry_after = retry_after
        self.resource = resource
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code.name})"


class InvalidArgument(StationmasterError):
    """The request is wrong whatever the state of the system; `violations` names the fields."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(StationmasterError):
    """The resource does not exist, or belongs to somebody else; `resource` names it."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(StationmasterError):
    """A resource of this name exists; `resource` names it."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(StationmasterError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(StationmasterError):
    """The caller is not known: no key, or one that is wrong, expired or revoked."""

    code = grpc.StatusCode.UNAUTHENTICATED


class FailedPrecondition(StationmasterError):
    """The state of the system forbids the call; `violations` says which state and what to do."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(StationmasterError):
    """Somebody else changed the resource meanwhile: read it again and decide anew."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(StationmasterError):
    """A position lies past the end."""

    code = grpc.StatusCode.OUT_OF_RANGE


class ResourceExhausted(StationmasterError):
    """A quota, a rate or a bound is used up; `retry_after` says when to come again."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(StationmasterError):
    """The server, or something that it needs, cannot be reached; the same call may succeed later."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(StationmasterError):
    """The deadline passed before the answer came. Whether the call was done is not known."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(StationmasterError):
    """The call was cancelled by the server or on the way to it."""

    code = grpc.StatusCode.CANCELLED


class Unimplemented(StationmasterError):
    """The server has no such method: it is older than this client, or the service is not part of it."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(StationmasterError):
    """A fault of the server; its log tells more under `request_id`."""

    code = grpc.StatusCode.INTERNAL


class DataLoss(StationmasterError):
    """Events are missing from a stream, and nothing says that they were compacted."""

    code = grpc.StatusCode.DATA_LOSS


CLASSES: Mapping[grpc.StatusCode, type[StationmasterError]] = {
    cls.code: cls for cls in StationmasterError.__subclasses__()
}


def from_rpc_error(error: aio.AioRpcError) -> StationmasterError:
    """Rebuild the error that the server raised from the status and its details."""
    metadata: dict[str, str | bytes] = {}
    for block in (error.initial_metadata(), error.trailing_metadata()):
        metadata.update(block or ())
    fields: dict[str, Any] = {"request_id": str(metadata.get(REQUEST_ID_KEY, ""))}
    details = metadata.get(DETAILS_KEY)
    if isinstance(details, bytes):
        for detail in status_pb2.Status.FromString(details).details:
            fields.update(_fields(detail))
    return CLASSES.get(error.code(), StationmasterError)(error.details() or error.code().name, **fields)


def _fields(detail: any_pb2.Any) -> dict[str, Any]:
    """What one detail of a status tells."""
    for cls, read in _READERS.items():
        message = cls()
        if detail.Unpack(message):
            return read(message)
    return {}


_READERS: Mapping[type[Message], Callable[[Any], dict[str, Any]]] = {
    error_details_pb2.ErrorInfo: lambda info: {"reason": info.reason, "metadata": dict(info.metadata)},
    error_details_pb2.RequestInfo: lambda info: {"request_id": info.request_id},
    error_details_pb2.ResourceInfo: lambda info: {"resource": info.resource_name},
    error_details_pb2.RetryInfo: lambda info: {"retry_after": info.retry_delay.ToTimedelta()},
    error_details_pb2.BadRequest: lambda bad: {
        "violations": tuple(Violation(field.field, field.description) for field in bad.field_violations)
    },
    error_details_pb2.PreconditionFailure: lambda failure: {
        "violations": tuple(Violation(v.subject, v.description, v.type) for v in failure.violations)
    },
    error_details_pb2.QuotaFailure: lambda failure: {
        "violations": tuple(Violation(v.subject, v.description) for v in failure.violations)
    },
}
