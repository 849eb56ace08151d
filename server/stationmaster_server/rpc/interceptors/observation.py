"""Counts, times and logs calls."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import grpc
import structlog

from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.interceptors.base import After, Before, Interceptor
from stationmaster_server.rpc.method import Method
from stationmaster_server.telemetry import context
from stationmaster_server.telemetry.calls import CallMetrics

AccessLog = Literal["all", "errors", "none"]
_log = structlog.get_logger("stationmaster_server.access")
# What callers do wrong all day is no news; what we do wrong is.
_OUR_FAULT = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE})


class Observation(Interceptor):
    """Comes after the request id and before everything else, so that refusals are seen too."""

    def __init__(self, metrics: CallMetrics, *, access_log: AccessLog, slow: timedelta) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._slow = slow.total_seconds()

    def before(self, method: Method) -> Before:
        """Return what notes the beginning of a call."""
        calls = self._metrics.of(method.service, method.name)

        def begin(call: Call) -> None:
            calls.begin()
            context.request_id.set(call.request_id)
            if "traceparent" in call.metadata:
                context.trace_id.set(trace_id_of(call.text("traceparent")))

        return begin

    def after(self, method: Method) -> After:
        """Return what notes its end."""
        calls = self._metrics.of(method.service, method.name)
        slow = float("inf") if method.streaming else self._slow
        log_all, log_errors = self._access_log == "all", self._access_log != "none"

        def end(call: Call) -> None:
            seconds = call.seconds
            calls.end(call.code.name, seconds)
            if log_all or (log_errors and (call.code is not grpc.StatusCode.OK or seconds > slow)):
                _write(call, seconds)

        return end


def trace_id_of(traceparent: str) -> str:
    """Return the trace id of a W3C traceparent; empty when it is malformed."""
    parts = traceparent.split("-")
    well_formed = len(parts) >= 4 and len(parts[1]) == 32 and set(parts[1]) <= set("0123456789abcdef")
    return parts[1] if well_formed else ""


def _write(call: Call, seconds: float) -> None:
    caller = call.caller
    _log.log(
        40 if call.code in _OUR_FAULT else 20,
        "call",
        method=call.method.path,
        code=call.code.name,
        reason=call.reason or None,
        ms=round(seconds * 1000, 3),
        peer=call.context.peer(),
        subject=caller.subject if caller else None,
        organization=str(caller.tenant.organization_id) if caller else None,
    )
