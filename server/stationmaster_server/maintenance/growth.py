"""Whether the process grows over the runs of a service: memory and open files."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_RUNS = 5
"""A service is suspected when each of its last runs left more behind than it found."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the process has now."""

    memory_bytes: int
    handles: int

    @classmethod
    def now(cls) -> Footprint:
        """Read what the system says of this process; it takes a fraction of a millisecond."""
        process = _process()
        return cls(process.memory_info().rss, _handles(process))


class Growth:
    """What the last runs of a service left behind.

    Other work of the process is in the figures too. It comes and goes: so growth counts only when every one of the last
    runs left more than it found.
    """

    def __init__(self) -> None:
        self._memory: deque[int] = deque(maxlen=_RUNS)
        self._handles: deque[int] = deque(maxlen=_RUNS)
        self.memory_bytes = 0
        self.handles = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look before and after a run."""
        before = Footprint.now()
        try:
            yield
        finally:
            after = Footprint.now()
            self.memory_bytes = _grown(self._memory, after.memory_bytes - before.memory_bytes, self.memory_bytes)
            self.handles = _grown(self._handles, after.handles - before.handles, self.handles)


def _grown(last: deque[int], change: int, so_far: int) -> int:
    """How much was left behind in all, by runs each of which left something."""
    last.append(change)
    if change <= 0:
        return 0
    if len(last) < _RUNS or min(last) <= 0:
        return 0
    return so_far + change if so_far else sum(last)


_known: list[psutil.Process] = []


def _process() -> psutil.Process:
    if not _known or _known[0].pid != os.getpid():  # forked
        _known[:] = [psutil.Process()]
    return _known[0]


def _handles(process: psutil.Process) -> int:
    if sys.platform == "win32":
        return int(process.num_handles())
    return int(process.num_fds())
