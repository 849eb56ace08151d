"""Who calls, and until when: set by the interceptors for one call, read by its servicer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta

from google.protobuf.message import Message

from stationmaster_server.db.caller import Caller
from stationmaster_server.resilience.whose import WHOSE
from stationmaster_server.wire.fields import request_key

_caller: ContextVar[Caller] = ContextVar("stationmaster_caller")
_deadline: ContextVar[float | None] = ContextVar("stationmaster_deadline", default=None)


def current_caller() -> Caller:
    """The authenticated caller of this call; a LookupError outside the authentication interceptor."""
    return _caller.get()


def caller_of(request: Message) -> Caller:
    """The caller of a mutation, with the request's `request_id` as its `request_key`."""
    caller = current_caller()
    key = request_key(request, caller.method)
    return caller if key is None else replace(caller, request_key=key)


def current_deadline() -> float | None:
    """The `time.monotonic()` at which this call's deadline passes; None when it has none."""
    return _deadline.get()


def time_left() -> timedelta | None:
    """How long this call may still take, never negative; None when it has no deadline."""
    deadline = _deadline.get()
    return None if deadline is None else timedelta(seconds=max(0.0, deadline - time.monotonic()))


@contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Runs the body as a call of this caller."""
    token, before = _caller.set(caller), WHOSE.set(caller.tenant.organization_id)
    try:
        yield
    finally:
        WHOSE.reset(before)
        _caller.reset(token)


@contextmanager
def until(deadline: float | None) -> Iterator[None]:
    """Runs the body as a call with this deadline (`time.monotonic()`)."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)
