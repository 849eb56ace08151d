"""One span for each call, a child of what the caller's `traceparent` names. Absent unless traces are configured."""

from __future__ import annotations

import grpc
from opentelemetry import context as otel
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.interceptors.base import After, Before, Interceptor
from stationmaster_server.rpc.method import Method
from stationmaster_server.telemetry import context

_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing(Interceptor):
    """Starts the span when the call begins; what the servicer does then falls under it."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def before(self, method: Method) -> Before:
        """Return what starts the span."""
        name = method.path.lstrip("/")
        attributes = {"rpc.system": "grpc", "rpc.service": method.service, "rpc.method": method.name}

        def start(call: Call) -> None:
            sent = {key: call.text(key) for key in _PROPAGATOR.fields if key in call.metadata}
            parent = _PROPAGATOR.extract(sent)
            span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
            otel.attach(set_span_in_context(span, parent))
            context.trace_id.set(format_trace_id(span.get_span_context().trace_id))
            call.span = span

        return start

    def after(self, method: Method) -> After:
        """Return what ends it."""
        return _end


def _end(call: Call) -> None:
    span = call.span
    if not isinstance(span, Span):
        return
    span.set_attribute("rpc.grpc.status_code", call.code.value[0])
    span.set_attribute("stationmaster.request_id", call.request_id)
    if call.code is not grpc.StatusCode.OK:
        span.set_status(Status(StatusCode.ERROR, call.reason))
    if call.error is not None:
        span.record_exception(call.error)
    span.end()
