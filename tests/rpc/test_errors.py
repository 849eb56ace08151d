"""Errors as statuses: complete, equal to the contract, small enough."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from stationmaster.v1 import error_reason_pb2
from stationmaster_server import errors
from stationmaster_server.errors import (
    FieldViolation,
    PreconditionViolation,
    QuotaViolation,
    Reason,
    StationmasterError,
)
from stationmaster_server.rpc.errors import (
    DETAILS_LIMIT_BYTES,
    STATUS_CODES,
    Internal,
    MessageTooLarge,
    UnknownMethod,
    code_of,
    to_status,
)

PREFIX = "ERROR_REASON_"
EXAMPLES: tuple[tuple[StationmasterError, grpc.StatusCode, set[str]], ...] = (
    (errors.InvalidArgument.field("a.b", "is wrong"), grpc.StatusCode.INVALID_ARGUMENT, {"BadRequest"}),
    (errors.NotFound("Session", "sessions/1"), grpc.StatusCode.NOT_FOUND, {"ResourceInfo"}),
    (errors.AlreadyExists("Agent", "agents/a"), grpc.StatusCode.ALREADY_EXISTS, {"ResourceInfo"}),
    (errors.PermissionDenied(Reason.SCOPE_MISSING, "no"), grpc.StatusCode.PERMISSION_DENIED, set()),
    (errors.Unauthenticated(Reason.CREDENTIALS_INVALID, "who?"), grpc.StatusCode.UNAUTHENTICATED, set()),
    (
        errors.FailedPrecondition(Reason.SESSION_BUSY, "busy", PreconditionViolation("STATE", "sessions/1", "wait")),
        grpc.StatusCode.FAILED_PRECONDITION,
        {"PreconditionFailure"},
    ),
    (errors.Aborted(Reason.ETAG_MISMATCH, "stale"), grpc.StatusCode.ABORTED, set()),
    (
        errors.ResourceExhausted(
            Reason.QUOTA_EXCEEDED, "full", QuotaViolation("users/1", "10 calls"), retry_after=timedelta(seconds=7)
        ),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        {"QuotaFailure", "RetryInfo"},
    ),
    (errors.Unavailable(Reason.DATABASE_UNAVAILABLE, "away"), grpc.StatusCode.UNAVAILABLE, {"RetryInfo"}),
    (errors.DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "late"), grpc.StatusCode.DEADLINE_EXCEEDED, set()),
    (errors.ProcessDied(Reason.INTERNAL, "dead"), grpc.StatusCode.INTERNAL, set()),
    (UnknownMethod("/a/B"), grpc.StatusCode.UNIMPLEMENTED, set()),
    (MessageTooLarge(2, 1), grpc.StatusCode.RESOURCE_EXHAUSTED, {"QuotaFailure"}),
    (Internal("r"), grpc.StatusCode.INTERNAL, set()),
)


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    """All descendants of a class."""
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


def details(serialised: bytes) -> dict[str, Any]:
    """The details of a serialised status."""
    found: dict[str, Message] = {}
    for packed in status_pb2.Status.FromString(serialised).details:
        name = packed.TypeName().rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        packed.Unpack(found[name])
    return found


def test_every_error_class_has_a_status_code() -> None:
    ours = [cls for cls in subclasses(StationmasterError) if cls.__module__.startswith("stationmaster_server")]
    assert set(STATUS_CODES) <= set(ours)
    for cls in ours:
        assert any(ancestor in STATUS_CODES for ancestor in cls.__mro__), f"{cls.__name__} is not in the table"


def test_every_error_class_of_the_table_has_an_example_here() -> None:
    assert {type(error) for error, _, _ in EXAMPLES} == set(STATUS_CODES)


def test_the_reasons_are_those_of_the_proto() -> None:
    proto = {name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert {reason.value for reason in Reason} == proto
    assert all(reason.name == reason.value for reason in Reason)


def test_a_subclass_has_the_code_of_its_nearest_ancestor() -> None:
    class Nearer(errors.NotFound):
        pass

    assert code_of(Nearer("Thing", "things/1")) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("error", "code", "expected"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_each_status_carries_the_details_that_its_code_promises(
    error: StationmasterError, code: grpc.StatusCode, expected: set[str]
) -> None:
    status = to_status(error, "request-1")
    assert (status.code, status.message) == (code, error.message)
    found = details(status.details)
    assert found.keys() == {"ErrorInfo", "RequestInfo"} | expected
    assert (found["ErrorInfo"].domain, found["ErrorInfo"].reason) == ("stationmaster", error.reason.value)
    assert found["RequestInfo"].request_id == "request-1"


@pytest.mark.parametrize("error", [error for error, _, _ in EXAMPLES], ids=lambda error: type(error).__name__)
def test_an_error_survives_the_way_from_another_process(error: StationmasterError) -> None:
    error.add_note("seen there")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_the_details_say_what_the_error_said() -> None:
    violation = details(to_status(EXAMPLES[0][0], "r").details)["BadRequest"].field_violations[0]
    assert (violation.field, violation.description) == ("a.b", "is wrong")
    exhausted = details(to_status(EXAMPLES[7][0], "r").details)
    assert exhausted["RetryInfo"].retry_delay.seconds == 7
    assert exhausted["QuotaFailure"].violations[0].subject == "users/1"
    resource = details(to_status(EXAMPLES[1][0], "r").details)["ResourceInfo"]
    assert (resource.resource_type, resource.resource_name) == ("Session", "sessions/1")
    metadata = errors.PermissionDenied(Reason.SCOPE_MISSING, "no", metadata={"scope": "a.b"})
    assert details(to_status(metadata, "r").details)["ErrorInfo"].metadata == {"scope": "a.b"}


@given(
    text=st.text(max_size=20_000),
    count=st.integers(min_value=0, max_value=300),
    kind=st.sampled_from(["fields", "preconditions", "quotas", "name", "metadata"]),
)
def test_no_error_exceeds_what_clients_take(text: str, count: int, kind: str) -> None:
    made: dict[str, StationmasterError] = {
        "fields": errors.InvalidArgument(Reason.INVALID_FIELD, text, *[FieldViolation(text, text)] * count),
        "preconditions": errors.FailedPrecondition(
            Reason.SESSION_BUSY, text, *[PreconditionViolation("T", text, text)] * count
        ),
        "quotas": errors.ResourceExhausted(
            Reason.QUOTA_EXCEEDED, text, *[QuotaViolation(text, text)] * count, retry_after=timedelta(days=1)
        ),
        "name": errors.NotFound("Session", text),
        "metadata": errors.Aborted(Reason.ETAG_MISMATCH, text, metadata={f"key{n}": text for n in range(count)}),
    }
    status = to_status(made[kind], "r" * 64)
    assert len(status.details) <= DETAILS_LIMIT_BYTES
    assert len(status.message.encode()) <= 1024
    assert {"ErrorInfo", "RequestInfo"} <= details(status.details).keys()
