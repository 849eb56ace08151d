"""Which call a line of log belongs to: set once per call, read by the log."""

from __future__ import annotations

from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("stationmaster_request_id", default="")
"""Id of the call that runs in this context; empty outside calls."""

trace_id: ContextVar[str] = ContextVar("stationmaster_trace_id", default="")
"""W3C trace id that the caller sent or that tracing made; empty without one."""
