"""Circuit breakers by key: one for each of many others who are called."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from stationmaster_server.resilience.circuit_breaker import CircuitBreaker

MOST = 1_000


class Breakers:
    """The breakers of those who were called last; whoever is forgotten begins anew."""

    def __init__(self, make: Callable[[], CircuitBreaker], most: int = MOST) -> None:
        self._make = make
        self._most = most
        self._breakers: OrderedDict[Hashable, CircuitBreaker] = OrderedDict()

    def of(self, key: Hashable) -> CircuitBreaker:
        """The breaker of a key."""
        if key not in self._breakers:
            self._breakers[key] = self._make()
        self._breakers.move_to_end(key)
        while len(self._breakers) > self._most:
            self._breakers.popitem(last=False)
        return self._breakers[key]
