"""Stops calling what keeps failing, and tries it again after a pause."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

from stationmaster_server.errors import Reason, Unavailable

T = TypeVar("T")


class State(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    """Calls pass."""
    OPEN = "open"
    """Calls are refused until the pause is over."""
    HALF_OPEN = "half_open"
    """One call is let through to see whether it works again."""


class CircuitBreaker:
    """Opens after `failures` faults in a row; after `pause` one trial call closes it or opens it again.

    With `longest_pause`, each failed trial doubles the pause up to that, give or take a fifth, so that many breakers of
    one cause do not try at once. `reason` is what a refused call is told, and what `told` says of the last fault.

    Only errors that `counts` says are faults of the other side are counted: a refused argument proves that it lives. A
    cancelled call counts neither way.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 5,
        pause: timedelta = timedelta(seconds=30),
        longest_pause: timedelta | None = None,
        reason: Reason = Reason.SERVER_OVERLOADED,
        counts: Callable[[Exception], bool] = lambda error: True,
        told: Callable[[Exception], str] = lambda error: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._limit = failures
        self._shortest = self._pause = pause.total_seconds()
        self._longest = longest_pause.total_seconds() if longest_pause else None
        self._reason = reason
        self._counts = counts
        self._told = told
        self._last = ""
        self._clock = clock
        self._failed = 0
        self._opened_at = 0.0
        self._state = State.CLOSED

    @property
    def state(self) -> State:
        """Where it stands now."""
        return self._state

    async def call(self, work: Callable[[], Awaitable[T]], *, force: bool = False) -> T:
        """Run `work` unless the breaker is open; then raise Unavailable with the time that is left of the pause.

        `force`: run it all the same; its outcome counts.
        """
        trial = not force and self._admit()
        settled = False
        try:
            result = await work()
            settled = True
        except Exception as error:
            settled = True
            if self._counts(error):
                self._fail(self._told(error))
            else:
                self._succeed()
            raise
        finally:
            if trial and not settled:  # cancelled: the next call is the trial
                self._state = State.OPEN
        self._succeed()
        return result

    def _admit(self) -> bool:
        if self._state is State.CLOSED:
            return False
        left = self._opened_at + self._pause - self._clock()
        if self._state is State.HALF_OPEN or left > 0:
            text = f"{self.name} failed {self._failed} times in a row and is left alone for a while"
            raise Unavailable(
                self._reason,
                f"{text}. The last time: {self._last}" if self._last else text,
                retry_after=timedelta(seconds=max(left, 1.0)),
            )
        self._state = State.HALF_OPEN
        return True

    def _fail(self, why: str) -> None:
        self._failed += 1
        self._last = why
        if self._state is State.HALF_OPEN and self._longest is not None:
            spread = random.uniform(0.8, 1.2)  # noqa: S311 - nothing secret
            self._pause = min(self._pause * 2, self._longest) * spread
        if self._state is State.HALF_OPEN or self._failed >= self._limit:
            self._state = State.OPEN
            self._opened_at = self._clock()

    def _succeed(self) -> None:
        self._failed = 0
        self._pause = self._shortest
        self._state = State.CLOSED
