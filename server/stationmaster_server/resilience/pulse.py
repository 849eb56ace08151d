"""What an engine does over and over, counted, so that somebody can see whether it lives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from stationmaster_server.errors import Unavailable

_MOST_ERRORS = 50


class Pulse:
    """Of one engine of this process. It costs about a microsecond a round. Times are as of `time.time`."""

    __slots__ = (
        "busy_seconds",
        "completed",
        "errors",
        "failed",
        "failures_in_a_row",
        "last_error",
        "last_round",
        "last_success",
    )

    def __init__(self) -> None:
        self.completed = 0
        self.failed = 0
        self.failures_in_a_row = 0
        self.busy_seconds = 0.0
        self.last_round = 0.0
        self.last_success = 0.0
        self.last_error = ""
        self.errors: list[str] = []
        """Those that nobody has taken yet; of many, the first."""

    @contextmanager
    def round(self) -> Iterator[None]:
        """Count what is done inside: what it raises is a failure. A round that is cancelled is not counted."""
        began = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.missed(error)
            raise
        self.beat(time.perf_counter() - began)

    def beat(self, seconds: float) -> None:
        """A round went well and took so long."""
        self.completed += 1
        self.busy_seconds += seconds
        self.failures_in_a_row = 0
        self.last_round = self.last_success = time.time()

    def missed(self, error: BaseException) -> None:
        """A round failed. That the database is away is no fault of the engine's."""
        self.last_round = time.time()
        if isinstance(error, Unavailable):
            return
        self.failed += 1
        self.failures_in_a_row += 1
        self.last_error = f"{type(error).__name__}: {error}"
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append(self.last_error)

    def take_errors(self) -> list[str]:
        """The errors since the last take."""
        taken, self.errors = self.errors, []
        return taken
