"""One call on its way through the interceptors."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from grpc.aio import ServicerContext
from opentelemetry.trace import Span

from stationmaster_server.db.caller import Caller
from stationmaster_server.rpc.method import Method

Context: TypeAlias = "ServicerContext[Any, Any]"
"""What grpc tells of a call."""


class Call:
    """What the interceptors learn about a call and tell each other."""

    __slots__ = (
        "audited",
        "authenticate",
        "caller",
        "code",
        "context",
        "deadline",
        "entered",
        "error",
        "metadata",
        "method",
        "reason",
        "request_id",
        "span",
        "started",
    )

    def __init__(self, method: Method, context: Context) -> None:
        self.method = method
        self.context = context
        self.metadata: dict[str, str | bytes] = dict(context.invocation_metadata() or ())
        self.started = time.perf_counter()
        self.entered = 0
        """How many interceptors it has reached."""
        self.request_id = ""
        self.caller: Caller | None = None
        self.authenticate: Callable[[], Awaitable[object]] | None = None
        """Ask once more whether its caller may call, with the same credentials; None for an open method."""
        self.audited = False
        """Whether the trail has been told of the call's refusal."""
        self.deadline: float | None = None
        """The `time.monotonic()` at which the caller's deadline passes; None when it set none."""
        self.code = grpc.StatusCode.OK
        self.reason = ""
        """The ErrorReason, once the call has failed."""
        self.error: BaseException | None = None
        """What it failed with, when nobody expected that."""
        self.span: Span | None = None
        """Its span, when traces are on."""

    @property
    def seconds(self) -> float:
        """How long the call has taken so far."""
        return time.perf_counter() - self.started

    def text(self, key: str) -> str:
        """The metadata value of a key as text; empty when there is none."""
        value = self.metadata.get(key, "")
        return value if isinstance(value, str) else value.decode(errors="replace")
