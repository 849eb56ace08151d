"""Whether the process grows over the runs of a service: memory and open files."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import psutil

from stationmaster_server.telemetry.reading import ReadingThread

_RUNS = 5
"""A service is suspected when each of its last runs left more behind than it found."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the process has now."""

    memory_bytes: int
    handles: int


class Footprints:
    """Reads it, in a thread of its own; `close` it."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._thread = ReadingThread()

    async def read(self) -> Footprint | None:
        """What the system says of this process; None: it says nothing, as when files have run out."""
        try:
            return await self._thread.call(self.now)
        except (OSError, psutil.Error):
            return None

    def now(self) -> Footprint:
        """The same, in the caller's thread."""
        return Footprint(self._process.memory_info().rss, _handles(self._process))

    def close(self) -> None:
        """Read no more."""
        self._thread.close()


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

    def note(self, before: Footprint | None, after: Footprint | None) -> None:
        """A run ended."""
        if before is None or after is None:
            return
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


def _handles(process: psutil.Process) -> int:
    if sys.platform == "win32":
        return int(process.num_handles())
    # Linux 6.2 and later says how many there are; before that each of them is listed.
    stated = Path("/proc/self/fd").stat().st_size if sys.platform == "linux" else 0
    return stated or int(process.num_fds())
