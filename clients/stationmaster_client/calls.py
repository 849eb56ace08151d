"""Makes single calls: credentials, deadline, request id, and errors as exceptions of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message
from grpc import aio

from stationmaster_client.errors import CLASSES, from_rpc_error

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

DEFAULT_TIMEOUT = timedelta(seconds=30)

_deadline: ContextVar[float | None] = ContextVar("stationmaster_deadline", default=None)


@contextmanager
def deadline(limit: timedelta) -> Iterator[None]:
    """Give all calls inside, together, so much time; the server is told. An outer, earlier deadline holds."""
    outer = _deadline.get()
    end = time.monotonic() + limit.total_seconds()
    token = _deadline.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _deadline.reset(token)


class Calls:
    """A channel with what every call on it carries."""

    def __init__(self, channel: aio.Channel, api_key: str | None, timeout: timedelta = DEFAULT_TIMEOUT) -> None:
        self.channel = channel
        self.timeout = timeout
        self._metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {api_key}"),) if api_key else ()

    async def unary(self, method: aio.UnaryUnaryMultiCallable[Q, A], request: Q, timeout: timedelta | None = None) -> A:
        """Make a call with one answer, in `timeout` or the client's. Raises the StationmasterError of the status."""
        fill_request_id(request)
        call = method(request, timeout=self._seconds(timeout or self.timeout), metadata=self._metadata)
        try:
            return await call
        except aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        except asyncio.CancelledError:
            if was_cancelled():
                raise
            # grpc.aio raises this, too, for a call that somebody else cancelled.
            raise CLASSES[grpc.StatusCode.CANCELLED](await call.details()) from None

    def stream(self, method: aio.UnaryStreamMultiCallable[Q, A], request: Q) -> aio.UnaryStreamCall[Q, A]:
        """Open a stream; it has no deadline but one that `deadline` set. Whoever opens it cancels it."""
        fill_request_id(request)
        return method(request, timeout=self._seconds(None), metadata=self._metadata)

    def upload(self, method: aio.StreamUnaryMultiCallable[Q, A]) -> aio.StreamUnaryCall[Q, A]:
        """Begin a stream of requests; it has no deadline but one that `deadline` set. Whoever begins it cancels it."""
        return method(timeout=self._seconds(None), metadata=self._metadata)

    def _seconds(self, limit: timedelta | None) -> float | None:
        end = _deadline.get()
        own = None if limit is None else limit.total_seconds()
        if end is None:
            return own
        left = max(0.0, end - time.monotonic())
        return left if own is None else min(own, left)


def fill_request_id(request: Message) -> None:
    """Give a mutation an id, so that a repeat of it (by gRPC's retry, too) does nothing twice."""
    if "request_id" in request.DESCRIPTOR.fields_by_name and not getattr(request, "request_id"):  # noqa: B009
        setattr(request, "request_id", str(uuid4()))  # noqa: B010


def was_cancelled() -> bool:
    """Whether it is the running task that was cancelled, and not only a call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
