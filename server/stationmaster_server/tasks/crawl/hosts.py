"""How fast each host is asked: requests apart by an interval, so many at once, none while it rests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stationmaster_server.tasks.crawl.clock import Clock

_GIVE_UP_AFTER = 10


@dataclass(slots=True)
class _Host:
    interval: float
    next_turn: float = 0.0
    rests_until: float = 0.0
    busy: int = 0
    failures: int = 0

    @property
    def ready_at(self) -> float:
        return max(self.next_turn, self.rests_until)


class Hosts:
    """The hosts of a crawl. `interval`: seconds between the starts of two requests; `concurrency`: pages at once."""

    def __init__(self, interval: float, concurrency: int, clock: Clock) -> None:
        self._interval = interval
        self._concurrency = concurrency
        self._clock = clock
        self._hosts: dict[str, _Host] = {}

    def pick(self, hosts: Iterable[str]) -> str | None:
        """The host, of those with room for one more page, that can be asked first."""
        free = [host for host in hosts if self._of(host).busy < self._concurrency]
        return min(free, key=lambda host: self._of(host).ready_at, default=None)

    def enter(self, host: str) -> None:
        """A page of the host is being dealt with."""
        self._of(host).busy += 1

    def leave(self, host: str) -> None:
        """It is no longer."""
        self._of(host).busy -= 1

    async def turn(self, host: str) -> None:
        """Return when the next request to the host may begin."""
        of = self._of(host)
        while True:
            at = max(self._clock.now(), of.ready_at)
            of.next_turn = at + of.interval
            await self._clock.sleep_until(at)
            if of.rests_until <= self._clock.now():
                return

    def slow_down(self, host: str, interval: float) -> None:
        """Ask the host less often, if the interval is longer than the one it has."""
        of = self._of(host)
        longer = max(of.interval, interval)
        of.next_turn += longer - of.interval
        of.interval = longer

    def rest(self, host: str, seconds: float) -> None:
        """Leave the host alone for so long."""
        of = self._of(host)
        of.rests_until = max(of.rests_until, self._clock.now() + seconds)

    def answered(self, host: str) -> None:
        """The host answered."""
        self._of(host).failures = 0

    def failed(self, host: str) -> None:
        """A page of the host failed for good, because of the host."""
        self._of(host).failures += 1

    def is_given_up(self, host: str) -> bool:
        """Whether so many pages failed in a row that the others are not worth their time limits."""
        return self._of(host).failures >= _GIVE_UP_AFTER

    def _of(self, host: str) -> _Host:
        known = self._hosts.get(host)
        if known is None:
            known = self._hosts[host] = _Host(self._interval)
        return known
