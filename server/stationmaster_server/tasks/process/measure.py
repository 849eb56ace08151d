"""How long parts of a text are, in constant time."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate

from stationmaster_server.tasks.process.model import Unit

_BYTES_OF_TOKEN = 4


class Measure:
    """Lengths of spans of one text, in characters or in bytes of UTF-8."""

    def __init__(self, text: str, unit: Unit) -> None:
        self._factor = _BYTES_OF_TOKEN if unit is Unit.TOKENS else 1
        self._ends: array[int] | None = None
        if unit is Unit.TOKENS and not text.isascii():
            self._ends = array("I", accumulate((_width(ord(character)) for character in text), initial=0))
        self._length = len(text)

    def limit(self, size: int) -> int:
        """A size of the unit, as `length` counts."""
        return size * self._factor

    def length(self, start: int, end: int) -> int:
        """How long a span is."""
        return end - start if self._ends is None else self._ends[end] - self._ends[start]

    def furthest(self, start: int, limit: int) -> int:
        """The greatest end of a span that begins at `start` and is no longer than the limit."""
        if self._ends is None:
            return min(start + limit, self._length)
        return bisect_right(self._ends, self._ends[start] + limit, start) - 1

    def earliest(self, end: int, limit: int) -> int:
        """The least start of a span that ends at `end` and is no longer than the limit."""
        if self._ends is None:
            return max(end - limit, 0)
        start = bisect_right(self._ends, self._ends[end] - limit - 1, 0, end + 1) if self._ends[end] > limit else 0
        return min(start, end)


def _width(point: int) -> int:
    return 1 if point < 0x80 else 2 if point < 0x800 else 3 if point < 0x10000 else 4
