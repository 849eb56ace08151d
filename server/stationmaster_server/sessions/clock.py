"""How long an attempt at a turn runs, and may run: by its limits, its session's and the day's quotas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from time import monotonic

from stationmaster_server.agents.runtime import Usage
from stationmaster_server.identity.excess import QuotaExceeded
from stationmaster_server.sessions import limits
from stationmaster_server.sessions.begun import Begun
from stationmaster_server.sessions.steps import Steps
from stationmaster_server.sessions.stopped import Stopped, limited, over_quota

_AHEAD = 10.0
"""So many seconds before its paid time is over, or half of it, a turn asks for more: a slow answer stops nobody."""


class Clock:
    """Measures the turn's running time, and calls `stop` with the reason when there is no more."""

    def __init__(self, steps: Steps, begun: Begun, stop: Callable[[Exception], None]) -> None:
        self._steps = steps
        self._begun = begun
        self._stop = stop
        self._lap_began = monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._payer: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go by the limits of the turn and the session. Raises Stopped when they leave no time."""
        begun = self._begun
        left = limits.time_left(begun.limits, begun.session.usage, begun.turn.usage)
        if left is None:
            return
        time, breach = left
        if time <= timedelta(0):
            raise limited(breach)
        self._timer = asyncio.get_running_loop().call_later(time.total_seconds(), self._stop, limited(breach))

    async def pay(self) -> None:
        """Have running time set aside of the day's quotas from now on, if they limit it. Raises Stopped, LeaseLost."""
        if self._payer is not None and not self._payer.done():
            return
        paid_until = await self._pay()
        if paid_until is not None:
            self._payer = asyncio.create_task(self._keep_paying(paid_until))
            self._payer.add_done_callback(self._not_paid)

    def lap(self) -> Usage:
        """The time since the last lap: what the step took."""
        now = monotonic()
        passed, self._lap_began = now - self._lap_began, now
        return Usage(running_time=timedelta(seconds=passed))

    async def close(self) -> None:
        """Stop watching; what is set aside is given back by the statement that ends or suspends the turn."""
        if self._timer is not None:
            self._timer.cancel()
        if self._payer is not None:
            self._payer.cancel()
            await asyncio.gather(self._payer, return_exceptions=True)

    async def _keep_paying(self, paid_until: float) -> None:
        try:
            while True:
                left = paid_until - monotonic()
                await asyncio.sleep(left - min(_AHEAD, left / 2))
                more = await self._pay()
                if more is None:
                    return  # it is not limited any more
                paid_until = more
        except Stopped:
            await asyncio.sleep(paid_until - monotonic())
            raise

    def _not_paid(self, payer: asyncio.Task[None]) -> None:
        error = None if payer.cancelled() else payer.exception()
        if isinstance(error, Exception):
            self._stop(error)

    async def _pay(self) -> float | None:
        """Until when the turn may run now, by `monotonic`; None where that is not limited."""
        asked = monotonic()
        try:
            left = await self._steps.pay_time(self._begun.turn)
        except QuotaExceeded as exceeded:
            raise over_quota(exceeded) from exceeded
        return None if left is None else asked + left.total_seconds()
