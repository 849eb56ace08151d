"""Turns whatever a call raised into the status that its caller sees."""

from __future__ import annotations

import grpc
import structlog

from stationmaster_server.errors import StationmasterError
from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.errors import Internal, Status, to_status

_log = structlog.get_logger(__name__)


def answer(call: Call, error: Exception) -> Status:
    """Return the status of an error and note it on the call. Text of an unexpected one goes to the log alone."""
    if isinstance(error, StationmasterError):
        expected = error
    else:
        expected = Internal(call.request_id)
        call.error = error
        _log.error("call failed unexpectedly", method=call.method.path, request_id=call.request_id, exc_info=error)
    status = to_status(expected, call.request_id)
    call.code, call.reason = status.code, expected.reason.value
    return status


def gave_up(call: Call) -> None:
    """Note that the caller went away, or that grpc ended the call at its deadline."""
    remaining: float | None = call.context.time_remaining()
    late = remaining is not None and remaining <= 0
    call.code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    call.reason = "DEADLINE_EXCEEDED" if late else "CANCELLED"
