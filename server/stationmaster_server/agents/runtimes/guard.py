"""A circuit breaker around what is not one coroutine: the attempt at an answer, which yields while it runs."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, Self

from stationmaster_server.resilience.circuit_breaker import CircuitBreaker


@types.coroutine
def _until_resumed() -> Generator[None, None, None]:
    yield


class Guarded:
    """A `with` block that the breaker takes for one call: it may refuse it, and it hears how it ends.

    `CircuitBreaker.call` wants a coroutine function. It gets one that waits, and is resumed, or thrown into, by hand.

    Raises:
        Unavailable: The breaker is open.
    """

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._call: Coroutine[Any, Any, None] = breaker.call(_until_resumed)

    def __enter__(self) -> Self:
        self._call.send(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._call.send(None)
            except StopIteration:
                return
        elif isinstance(error, Exception):
            try:
                self._call.throw(error)
            except Exception as raised:
                if raised is not error:
                    raise
        else:
            # Cancelled, or the iterator was closed: that tells nothing of the other side.
            self._call.close()
