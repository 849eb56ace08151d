"""Streams that resume by themselves: over broken connections, restarts and UNAVAILABLE, without loss or repeat."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import grpc
from grpc import aio

from stationmaster_client.calls import was_cancelled
from stationmaster_client.errors import CLASSES, StationmasterError, Unavailable, from_rpc_error

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

SILENCE_LIMIT_SECONDS = 75.0
"""An idle stream sends keepalives every 15 s; after so long without any the connection is taken for dead."""
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0

# Without a reason of the server's own these come from the connection: a reset, a proxy, a burst that gRPC turned away.
_TRANSPORT_CODES = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
_COME_AGAIN_REASONS = frozenset({"RATE_LIMITED", "SERVER_OVERLOADED"})


@dataclass(frozen=True, slots=True)
class Interruption:
    """A stream broke and goes on by itself after `delay_seconds`."""

    error: StationmasterError
    attempt: int
    """1 for the first try since something was last received."""
    delay_seconds: float
    after_sequence: int


class Source(Protocol[T_co]):
    """What a stream reads from: how to open it at its current place, and what a batch holds that is new."""

    @property
    def last_sequence(self) -> int:
        """The last sequence that was taken."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""

    def open(self) -> aio.UnaryStreamCall[Any, Any]:
        """Open the stream after what was taken."""

    def take(self, batch: Any) -> Sequence[T_co]:
        """Return the items of a batch that are new."""

    def must_reopen(self) -> bool:
        """Whether to read again from the current place, because something seems to be missing."""

    def end(self) -> StationmasterError | None:
        """The server ended the stream with OK. None: that was all; an error: it was not, go on."""


class Patience:
    """How often, and how long, to try again after interruptions: longer and longer, until one call gets on."""

    def __init__(
        self, patience: timedelta | None = None, on_interruption: Callable[[Interruption], None] | None = None
    ) -> None:
        """`patience`: how long to try in vain before the error is raised; None: for ever."""
        self._patience = None if patience is None else patience.total_seconds()
        self._on_interruption = on_interruption
        self._attempt = 0
        self._alive_at = time.monotonic()

    def got_on(self) -> None:
        """Something came: the next interruption is a first one."""
        self._attempt = 0
        self._alive_at = time.monotonic()

    async def wait(self, error: StationmasterError, after: int) -> None:
        """Wait before the next try. Raises the error when that has been tried for too long."""
        self._attempt += 1
        delay = self._delay(error)
        if self._patience is not None and time.monotonic() + delay > self._alive_at + self._patience:
            raise error
        if self._on_interruption is not None:
            self._on_interruption(Interruption(error, self._attempt, delay, after))
        await asyncio.sleep(delay)

    def _delay(self, error: StationmasterError) -> float:
        """Exponential, with half of it left to chance so that a restarted server is not met by all at once."""
        longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(self._attempt - 1, 10))
        asked = 0.0 if error.retry_after is None else error.retry_after.total_seconds()
        return asked + longest * random.uniform(0.5, 1.0)  # noqa: S311


class EventStream(Generic[T]):
    """An async iterator over single events, in order, each once.

    Leave it by `async with`, or `aclose()`: a call that is left open costs memory on both sides.
    """

    def __init__(
        self,
        source: Source[T],
        *,
        patience: timedelta | None = None,
        on_interruption: Callable[[Interruption], None] | None = None,
    ) -> None:
        """`patience`: how long to try in vain before the error is raised; None: for ever."""
        self.source = source
        self._patience = Patience(patience, on_interruption)
        self._call: aio.UnaryStreamCall[Any, Any] | None = None
        self._ready: deque[T] = deque()
        self._closed = False

    @property
    def last_sequence(self) -> int:
        """The newest sequence that was received; resume after it in another process."""
        return self.source.last_sequence

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._ready:
            if self._closed or self.source.finished:
                await self.aclose()
                raise StopAsyncIteration
            await self._fill()
        return self._ready.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._abandon()

    async def aclose(self) -> None:
        """End the call; iterating further ends at once."""
        self._closed = True
        self._abandon()

    def _abandon(self) -> None:
        # Since grpcio 1.83 a call that is dropped without this is never collected (grpc/grpc#43462).
        call, self._call = self._call, None
        if call is not None and not call.done():
            call.cancel()

    async def _fill(self) -> None:
        """Read one batch; a stream that breaks is opened again."""
        try:
            batch = await self._read()
        except aio.AioRpcError as error:
            await self._interrupted(from_rpc_error(error))
        except TimeoutError:
            await self._interrupted(Unavailable("the connection fell silent"))
        except asyncio.CancelledError:
            if was_cancelled():
                self._abandon()
                raise
            await self._interrupted(CLASSES[grpc.StatusCode.CANCELLED]("the call was cancelled on the way"))
        else:
            await self._accept(batch)

    async def _read(self) -> Any:
        if self._call is None:
            self._call = self.source.open()
        async with asyncio.timeout(SILENCE_LIMIT_SECONDS):
            return await self._call.read()

    async def _accept(self, batch: Any) -> None:
        if batch is aio.EOF:
            if (unexpected := self.source.end()) is not None:
                await self._interrupted(unexpected)
            return
        self._patience.got_on()
        self._ready.extend(self.source.take(batch))
        if self.source.must_reopen():
            self._abandon()

    async def _interrupted(self, error: StationmasterError) -> None:
        """Wait before the next try, or raise what waiting does not mend."""
        self._abandon()
        try:
            if not resumable(error):
                raise error
            await self._patience.wait(error, self.last_sequence)
        except StationmasterError:
            self._closed = True
            raise


def resumable(error: StationmasterError) -> bool:
    """Whether a reader goes on after this error: the connection or the server is away, or asks to come again."""
    if error.code is grpc.StatusCode.UNAVAILABLE:
        return True
    return (error.code in _TRANSPORT_CODES and not error.reason) or error.reason in _COME_AGAIN_REASONS
