"""Ids that the server makes: UUIDv7, so that new rows land at the end of an index."""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

_VERSION_7 = 0x7 << 76
_VARIANT = 0x2 << 62
_RANDOM_BITS = (1 << 62) - 1


class _Clock:
    """The 60 leading bits of the newest id: 48 of milliseconds, 12 of the fraction (RFC 9562, 6.2, method 3)."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def tick(self) -> int:
        now = (time.time_ns() << 12) // 1_000_000
        with self._lock:
            self._last = now if now > self._last else self._last + 1
            return self._last


_clock = _Clock()


def new_id() -> UUID:
    """A UUIDv7, greater than every one made before in this process, also when the clock steps back."""
    stamp = _clock.tick()
    random = int.from_bytes(os.urandom(8), "big") & _RANDOM_BITS
    return UUID(int=(stamp >> 12) << 80 | _VERSION_7 | (stamp & 0xFFF) << 64 | _VARIANT | random)
