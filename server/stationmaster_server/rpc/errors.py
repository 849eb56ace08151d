"""Errors as gRPC statuses: one table, one translator, details as AIP-193 has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableSequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from stationmaster_server import errors
from stationmaster_server.errors import Reason, StationmasterError

DOMAIN = "stationmaster"
DETAILS_KEY = "grpc-status-details-bin"
DETAILS_LIMIT_BYTES = 6 * 1024
"""Clients drop a status whose details exceed about 12 KiB; half of it leaves room for other trailers."""
_MESSAGE_LIMIT_BYTES = 1024
_TEXT_LIMIT_BYTES = 512
_METADATA_LIMIT_BYTES = 1536


class UnknownMethod(StationmasterError):
    """No such service or method is served here."""

    def __init__(self, method: str) -> None:
        super().__init__(
            Reason.UNKNOWN_METHOD, f"{method} is not a method of this server; reflection lists those that are"
        )


class MessageTooLarge(StationmasterError):
    """A request message is larger than the server takes."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            Reason.MESSAGE_TOO_LARGE,
            f"the message has {size_bytes} bytes and the server takes {limit_bytes}; send large content in chunks",
            metadata={"size_bytes": str(size_bytes), "limit_bytes": str(limit_bytes)},
        )
        # No time to come again beside it: the same message will always be too large.
        self.violations = (errors.QuotaViolation("message", f"at most {limit_bytes} bytes in one message"),)


class Internal(StationmasterError):
    """A fault of ours; the log has the traceback under the request id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(Reason.INTERNAL, f"internal error; the server's log tells more under request id {request_id}")


STATUS_CODES: Mapping[type[StationmasterError], grpc.StatusCode] = MappingProxyType(
    {
        errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
        errors.NotFound: grpc.StatusCode.NOT_FOUND,
        errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
        errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
        errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
        errors.Aborted: grpc.StatusCode.ABORTED,
        errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
        errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
        errors.ProcessDied: grpc.StatusCode.INTERNAL,
        MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
        UnknownMethod: grpc.StatusCode.UNIMPLEMENTED,
        Internal: grpc.StatusCode.INTERNAL,
    }
)


@dataclass(frozen=True, slots=True)
class Status:
    """What a failed call is answered with."""

    code: grpc.StatusCode
    message: str
    details: bytes
    """A serialised `google.rpc.Status`, for the trailer `DETAILS_KEY`."""


def code_of(error: StationmasterError) -> grpc.StatusCode:
    """Return the status code of an error: that of its nearest ancestor in the table. A KeyError is a class left out."""
    for cls in type(error).__mro__:
        if code := STATUS_CODES.get(cls):
            return code
    raise KeyError(type(error).__name__)


def to_status(error: StationmasterError, request_id: str) -> Status:
    """Translate an error that the product raised on purpose."""
    code = code_of(error)
    message = _cut(error.message, _MESSAGE_LIMIT_BYTES)
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in _fixed_details(error, request_id):
        status.details.append(_pack(detail))
    _add_violations(status, error)
    return Status(code, message, status.SerializeToString())


def _fixed_details(error: StationmasterError, request_id: str) -> Iterator[Message]:
    yield _error_info(error)
    yield error_details_pb2.RequestInfo(request_id=request_id)
    if isinstance(error, (errors.NotFound, errors.AlreadyExists)):
        yield error_details_pb2.ResourceInfo(resource_type=error.resource_type, resource_name=_cut(error.resource_name))
    if isinstance(error, (errors.ResourceExhausted, errors.Unavailable)):
        yield _retry_info(error.retry_after)


def _error_info(error: StationmasterError) -> Message:
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN)
    room = _METADATA_LIMIT_BYTES
    for key, value in error.metadata.items():
        text = _cut(value)
        room -= len(key) + len(text.encode())
        if room < 0:
            break
        info.metadata[key] = text
    return info


def _retry_info(after: timedelta) -> Message:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromTimedelta(max(after, timedelta()))
    return info


def _add_violations(status: status_pb2.Status, error: StationmasterError) -> None:
    """Add as many violations as the limit allows."""
    match error:
        case errors.InvalidArgument(violations=fields) if fields:
            bad = error_details_pb2.BadRequest()
            for field in fields:
                bad.field_violations.add(field=_cut(field.field), description=_cut(field.description))
            _append_within_limit(status, bad, bad.field_violations)
        case errors.FailedPrecondition(violations=preconditions) if preconditions:
            failure = error_details_pb2.PreconditionFailure()
            for unmet in preconditions:
                failure.violations.add(
                    type=unmet.type, subject=_cut(unmet.subject), description=_cut(unmet.description)
                )
            _append_within_limit(status, failure, failure.violations)
        case errors.ResourceExhausted(violations=quotas) | MessageTooLarge(violations=quotas) if quotas:
            quota = error_details_pb2.QuotaFailure()
            for used_up in quotas:
                quota.violations.add(subject=_cut(used_up.subject), description=_cut(used_up.description))
            _append_within_limit(status, quota, quota.violations)
        case _:
            pass


def _append_within_limit(status: status_pb2.Status, detail: Message, violations: MutableSequence[Any]) -> None:
    room = DETAILS_LIMIT_BYTES - status.ByteSize() - 128
    while detail.ByteSize() > room:
        violations.pop()
    status.details.append(_pack(detail))


def _pack(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _cut(text: str, limit_bytes: int = _TEXT_LIMIT_BYTES) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= limit_bytes else encoded[: limit_bytes - 3].decode(errors="ignore") + "…"
