"""The time that a crawl goes by, which a test may replace."""

from __future__ import annotations

import asyncio


class Clock:
    """Seconds of the event loop."""

    def now(self) -> float:
        """The time, in seconds from some point."""
        return asyncio.get_running_loop().time()

    async def sleep_until(self, time: float) -> None:
        """Return at `time`, at once if that has passed."""
        await asyncio.sleep(max(0.0, time - self.now()))
