"""An error as its caller sees it, and what rule 9 of the contract promises of every one."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2
from stationmaster.v1 import error_reason_pb2

DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "stationmaster-request-id"
LIMIT_BYTES = 6 * 1024
KINDS: tuple[type[Message], ...] = (
    details_pb2.ErrorInfo,
    details_pb2.RequestInfo,
    details_pb2.BadRequest,
    details_pb2.PreconditionFailure,
    details_pb2.QuotaFailure,
    details_pb2.RetryInfo,
    details_pb2.ResourceInfo,
)
PROMISED = {
    "INVALID_ARGUMENT": {"BadRequest"},
    "FAILED_PRECONDITION": {"PreconditionFailure"},
    "RESOURCE_EXHAUSTED": {"QuotaFailure", "RetryInfo"},
    "UNAVAILABLE": {"RetryInfo"},
    "NOT_FOUND": {"ResourceInfo"},
    "ALREADY_EXISTS": {"ResourceInfo"},
}
"""What a status carries besides ErrorInfo and RequestInfo, which all carry."""
AGAIN_IS_NO_USE = {"MESSAGE_TOO_LARGE"}
"""Refusals that the same call will meet again whenever it comes: no time to come again is told."""


@dataclass(frozen=True)
class Refusal:
    """A status with its details, which are as the contract has them."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]
    details: dict[str, Any]

    @property
    def fields(self) -> list[str]:
        """The fields that BadRequest names."""
        return [violation.field for violation in self.details["BadRequest"].field_violations]

    @property
    def advice(self) -> str:
        """All that it says to people."""
        found = [self.message]
        for kind, plural in (("BadRequest", "field_violations"), ("PreconditionFailure", "violations")):
            if kind in self.details:
                found += [violation.description for violation in getattr(self.details[kind], plural)]
        return " ".join(found)


async def refused(call: Awaitable[object]) -> Refusal:
    """The refusal of a call that is to fail; AssertionError when it does not, or breaks rule 9."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return read(error)
    raise AssertionError(f"it was answered: {answer!r}"[:500])


def read(error: grpc.aio.AioRpcError) -> Refusal:
    """Read a status, and check rule 9 on the way."""
    code, text = str(error.code().name), error.details() or ""
    trailers = dict(error.trailing_metadata() or ())
    assert DETAILS_KEY in trailers, f"{code} without details: {text}"
    raw = trailers[DETAILS_KEY]
    assert isinstance(raw, bytes)
    assert len(raw) < LIMIT_BYTES, f"{len(raw)} bytes of details"
    status = status_pb2.Status.FromString(raw)
    details: dict[str, Any] = dict(_unpacked(status))
    assert (status.message, status.code) == (text, error.code().value[0])
    info = details["ErrorInfo"]
    assert info.domain == "stationmaster"
    assert f"ERROR_REASON_{info.reason}" in error_reason_pb2.ErrorReason.keys(), info.reason  # noqa: SIM118 - an enum
    assert details["RequestInfo"].request_id == trailers[REQUEST_ID_KEY] != ""
    _check_promised(code, info.reason, details)
    assert len(text) > 10, f"{code} {info.reason} says next to nothing: {text!r}"
    return Refusal(code, info.reason, text, dict(info.metadata), details)


def _unpacked(status: status_pb2.Status) -> list[tuple[str, Message]]:
    found: list[tuple[str, Message]] = []
    for packed in status.details:
        detail = next(detail for kind in KINDS if packed.Unpack(detail := kind()))
        found.append((detail.DESCRIPTOR.name, detail))
    assert len({name for name, _ in found}) == len(found), "a kind of details comes twice"
    return found


def _check_promised(code: str, reason: str, details: dict[str, Any]) -> None:
    promised = PROMISED.get(code, set()) - ({"RetryInfo"} if reason in AGAIN_IS_NO_USE else set())
    assert promised <= details.keys(), f"{code} {reason} lacks {promised - details.keys()}"
    if "BadRequest" in details:
        violations = details["BadRequest"].field_violations
        assert violations
        assert all(each.field and each.description for each in violations), violations
    for kind in {"PreconditionFailure", "QuotaFailure"} & details.keys():
        assert details[kind].violations
        assert all(each.subject and each.description for each in details[kind].violations), details[kind]
    if "RetryInfo" in details:
        assert details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
    if "ResourceInfo" in details:
        assert details["ResourceInfo"].resource_type
        assert details["ResourceInfo"].resource_name
