"""Slows a server that floods, and closes one that does not stop."""

from __future__ import annotations

import asyncio
import time

from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Ended


class Rate:
    """What a server may send. Waiting in `take` means not reading on, which slows the server itself."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._left = bounds.message_burst
        self._at = time.monotonic()
        self._slowed = 0.0
        self._pressed = 0.0

    async def take(self, size_bytes: int = 0, messages: int = 1) -> None:
        """Account for what was read at once; raises Ended when the flood lasts."""
        now, rate = time.monotonic(), self._bounds.messages_per_second
        # What a busy machine reads too slowly to slow it down is a flood all the same.
        self._pressed = max(0.0, self._pressed - (now - self._at) * rate / 4) + messages
        if self._pressed > 2 * self._bounds.message_burst:
            raise Ended(f"it floods: more than {rate / 4:,.0f} messages a second without a pause", is_fault=True)
        self._left = min(self._left + (now - self._at) * rate, self._bounds.message_burst)
        self._at = now
        if self._left >= self._bounds.message_burst / 2:
            self._slowed = 0.0
        self._left -= messages + size_bytes / self._bounds.message_unit_bytes
        if self._left >= 0:
            return
        wait = -self._left / rate
        self._slowed += wait
        if self._slowed > self._bounds.flood_patience.total_seconds():
            raise Ended(f"it floods: more than {rate:,.0f} messages a second without a pause", is_fault=True)
        await asyncio.sleep(wait)


class Throttle:
    """Lets through what comes slowly, and drops the rest."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._rate, self._burst = per_second, burst
        self._left, self._at = float(burst), time.monotonic()

    def passes(self) -> bool:
        """Whether one more may pass now."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * self._rate, self._burst)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
