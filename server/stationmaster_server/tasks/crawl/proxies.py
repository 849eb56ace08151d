"""Proxies by turns; one that fails rests and comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stationmaster_server.tasks.crawl.clock import Clock
from stationmaster_server.tasks.crawl.settings import Proxy

_REST = 30.0
_LONGEST_REST = 600.0


@dataclass(slots=True)
class _Health:
    proxy: Proxy
    rests_until: float = 0.0
    failures: int = 0


class Proxies:
    """The proxies of a crawl, perhaps none. One rests 30 s after a failure, twice as long after each further one."""

    def __init__(self, proxies: Sequence[Proxy], clock: Clock) -> None:
        self._all = [_Health(proxy) for proxy in proxies]
        self._clock = clock
        self._next = 0

    async def choose(self) -> Proxy | None:
        """The next proxy that does not rest; when all do, the first to come back, once it has. None without any."""
        if not self._all:
            return None
        for _ in self._all:
            health = self._all[self._next % len(self._all)]
            self._next += 1
            if health.rests_until <= self._clock.now():
                return health.proxy
        first = min(self._all, key=lambda health: health.rests_until)
        await self._clock.sleep_until(first.rests_until)
        return first.proxy

    def worked(self, proxy: Proxy | None) -> None:
        """The proxy brought an answer."""
        for health in self._of(proxy):
            health.failures = 0

    def failed(self, proxy: Proxy | None) -> None:
        """The proxy could not be used."""
        for health in self._of(proxy):
            rest = min(_LONGEST_REST, _REST * 2**health.failures)
            health.rests_until = self._clock.now() + rest
            health.failures += 1

    def _of(self, proxy: Proxy | None) -> list[_Health]:
        return [health for health in self._all if health.proxy == proxy]
