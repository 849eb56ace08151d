"""Latencies as counts in buckets, each a quarter wider than the one before: percentiles to within an eighth."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

_FIRST_SECONDS = 10e-6
_GROWTH = 1.25
BUCKETS = 80
"""Up to about eight minutes; what takes longer is in the last."""
_LOG_GROWTH = log(_GROWTH)


def bucket(seconds: float) -> int:
    """The bucket of a latency."""
    if seconds <= _FIRST_SECONDS:
        return 0
    return min(1 + int(log(seconds / _FIRST_SECONDS) / _LOG_GROWTH), BUCKETS - 1)


def percentile(counts: Sequence[int], share: float) -> float:
    """The latency in seconds that a share (0 to 1) of all did not exceed; 0 when there are none."""
    wanted, seen = share * sum(counts), 0
    for place, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            upper = _FIRST_SECONDS * _GROWTH**place
            return upper if not place else upper / _GROWTH**0.5
    return 0.0
