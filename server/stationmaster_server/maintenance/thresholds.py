"""When somebody is told of a service: what is wrong with it, told once when it begins and once when it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from stationmaster_server.maintenance.base import BackgroundService
from stationmaster_server.maintenance.model import Fault, Figures, Policy

Alarm = Callable[[BackgroundService[Any], Figures, Fault | None], Awaitable[None]]
"""Told of each fault that a service has now and had not before; of None when it has none any more."""


def faults(figures: Figures, policy: Policy, errors_last_hour: int) -> Iterator[Fault]:
    """What is wrong with a service on one server. A threshold of zero is none."""
    if figures.failures_in_a_row > policy.max_failures:
        yield Fault("failing", f"it keeps failing: {figures.last_error}")
    if 0 < policy.alert_errors_per_hour <= errors_last_hour:
        yield Fault("errors", f"it failed {errors_last_hour} times within the last hour: {figures.last_error}")
    slow = policy.alert_run_time.total_seconds()
    if 0 < slow <= figures.recent_seconds:
        yield Fault("slow", f"its last runs took {figures.recent_seconds:.1f} s each")
    if 0 < policy.alert_memory_growth_bytes <= figures.memory_growth_bytes:
        grown = figures.memory_growth_bytes // 1024**2
        yield Fault("memory", f"each of its last runs left memory behind, {grown} MiB in all: it seems to leak")
    if 0 < policy.alert_handle_growth <= figures.handle_growth:
        yield Fault(
            "handles", f"each of its last runs left files open, {figures.handle_growth} in all: it seems to leak"
        )


class Watchman:
    """Tells of one service on one server."""

    def __init__(self, service: BackgroundService[Any], alarm: Alarm) -> None:
        self.figures = Figures()
        self.errors = 0
        """Within the hour, when somebody last counted."""
        self.told: frozenset[str] = frozenset()
        """The kinds of faults that somebody knows of."""
        self._service = service
        self._alarm = alarm

    async def look(self, policy: Policy, errors: int, *others: Fault) -> None:
        """Compare how it is with what was told. `others`: faults that the figures do not show."""
        self.errors = errors
        now = {fault.kind: fault for fault in (*faults(self.figures, policy, errors), *others)}
        before, self.told = self.told, frozenset(now)
        for kind, fault in now.items():
            if kind not in before:
                await self._alarm(self._service, self.figures, fault)
        if before and not now:
            await self._alarm(self._service, self.figures, None)
