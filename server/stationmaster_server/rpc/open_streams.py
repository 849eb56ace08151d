"""The streams under way: each can be ended with an answer that says why, at a stop or for its caller's sake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from datetime import timedelta
from typing import TypeVar

from stationmaster_server.errors import PermissionDenied, Reason, StationmasterError, Unauthenticated, Unavailable
from stationmaster_server.identity.model import Caller, Method
from stationmaster_server.rpc.call import Call

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSE = 1.0  # seconds until a question that nobody could answer is asked again


class _Stream:
    """A stream, and what it is ended with; None when the server stops."""

    __slots__ = ("call", "error", "stop")

    def __init__(self, call: Call, stop: asyncio.Timeout) -> None:
        self.call = call
        self.stop = stop
        self.error: StationmasterError | None = None


class OpenStreams:
    """Runs streams until they end by themselves, their caller may no longer call, or `end` is called."""

    def __init__(self) -> None:
        self._running: set[_Stream] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self._ended = False
        self.changes = 0
        """How often users or keys have changed: a call notes it before it asks who its caller is."""

    def __len__(self) -> int:
        return len(self._running)

    async def run(self, work: Awaitable[T], call: Call, changes: int) -> T:
        """Do the work of a stream whose caller was let in at `changes`.

        Unavailable when `end` cut it short; Unauthenticated, PermissionDenied when its caller's right to call did.
        """
        stream = _Stream(call, asyncio.timeout(0 if self._ended else None))
        self._running.add(stream)
        if changes != self.changes:  # what changed meanwhile did not find it here
            self._ask([stream])
        try:
            async with stream.stop:
                return await work
        except TimeoutError:
            if not stream.stop.expired():
                raise
            raise stream.error or _stopping() from None
        finally:
            self._running.discard(stream)

    def end(self) -> None:
        """End every stream, and those that would still begin."""
        self._ended = True
        for stream in tuple(self._running):
            self._end(stream)

    def changed(self, payload: str | None) -> None:
        """A user or key has changed (None: any may have): end the streams of those that may no longer call."""
        self.changes += 1
        self._ask([stream for stream in self._running if _concerns(payload, stream.call.caller)])

    def _ask(self, streams: Iterable[_Stream]) -> None:
        for stream in streams:
            task = asyncio.create_task(self._ask_again(stream), name="authenticate again")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask_again(self, stream: _Stream) -> None:
        while stream in self._running and stream.call.authenticate is not None:
            try:
                await stream.call.authenticate()
            except (Unauthenticated, PermissionDenied) as error:
                stream.error = error
                stream.call.audited = True  # by whoever refused
                self._end(stream)
            except StationmasterError as error:
                logger.warning("whether the caller of an open stream may still call is not known yet: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            return

    def _end(self, stream: _Stream) -> None:
        if stream in self._running and not stream.stop.expired():
            stream.stop.reschedule(asyncio.get_running_loop().time())


def _concerns(payload: str | None, caller: Caller | None) -> bool:
    if caller is None:
        return False
    if payload is None:
        return True
    kind, _, which = payload.partition(":")
    match kind:
        case "key":
            return caller.subject == f"{Method.API_KEY}:{which}"
        case "user":
            return str(caller.tenant.user_id) == which
    return False


def _stopping() -> Unavailable:
    return Unavailable(
        Reason.SERVER_STOPPING,
        "the server is stopping; call again, and go on after the last sequence or byte that you know of",
        retry_after=timedelta(seconds=1),
    )
