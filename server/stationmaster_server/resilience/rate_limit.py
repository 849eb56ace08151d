"""Token buckets: so many at once, so many a second, counted in this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class TokenBucket:
    """Holds at most `burst` tokens and gains `rate` of them a second. A rate of zero never refuses."""

    __slots__ = ("_burst", "_clock", "_rate", "_tokens", "_when")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._when = clock()

    def take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        if self._rate == 0:
            return 0.0
        now = self._clock()
        tokens = min(self._burst, self._tokens + (now - self._when) * self._rate)
        self._when = now
        if tokens >= 1:
            self._tokens = tokens - 1
            return 0.0
        self._tokens = tokens
        return (1 - tokens) / self._rate

    @property
    def full(self) -> bool:
        """Whether it would hold nothing back, so that it may be forgotten."""
        return self._tokens + (self._clock() - self._when) * self._rate >= self._burst


class TokenBuckets(Generic[K]):
    """A bucket for each key, remembered while it matters and for at most `keys` keys."""

    def __init__(
        self, rate: float, burst: float, *, keys: int = 100_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._keys = keys
        self._buckets: OrderedDict[K, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: K) -> float:
        """Take a token of the key's bucket and return 0, or return the seconds until there is one."""
        if self._rate == 0:
            return 0.0
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, self._clock)
            self._forget_full()
        return bucket.take()

    def _forget_full(self) -> None:
        """Look at the two oldest: those that are full again tell nothing; past the limit the oldest goes anyway."""
        for _ in range(2):
            if len(self._buckets) <= 1:
                return
            key, oldest = next(iter(self._buckets.items()))
            if oldest.full or len(self._buckets) > self._keys:
                del self._buckets[key]
            else:
                self._buckets.move_to_end(key)
