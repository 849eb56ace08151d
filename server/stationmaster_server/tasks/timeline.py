"""Wall-clock times of a cron expression as instants of a time zone, over every change of its offset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from stationmaster_server.tasks.cron import Cron

_REACH = timedelta(days=2)  # no change of an offset is as large
_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Run:
    """A stretch of time with one offset: from `at` on, the wall clock goes from `first` until before `last`.

    `at_once`: a time of the day that the clock skipped is due at its start.
    """

    at: datetime
    offset: timedelta
    first: datetime
    last: datetime
    at_once: bool


@dataclass(frozen=True, slots=True)
class CronTimeline:
    """The instants at which a wall clock of a zone shows what a cron expression names.

    Where the clock is put forward, an expression that names times of the day (`30 2 * * *`) is due once, at the first
    instant after the gap; one that runs through the day (`*/15 * * * *`) has no due time inside it. Where the clock is
    put back, the former is due the first time only, the latter both times. (The rule of Debian's cron.)
    """

    cron: Cron
    zone: ZoneInfo

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The due times after `after` up to and including `until`, ascending, in UTC."""
        for run in self._runs(after, until):
            if run.at_once and after < run.at <= until:
                yield run.at
            for wall in self.cron.between(*_part(run, after, until)):
                yield (wall - run.offset).replace(tzinfo=UTC)

    def count(self, after: datetime, until: datetime) -> int:
        """How many there are after `after` up to and including `until`."""
        return sum(
            self.cron.count(*_part(run, after, until)) + (run.at_once and after < run.at <= until)
            for run in self._runs(after, until)
        )

    def _runs(self, after: datetime, until: datetime) -> Iterator[_Run]:
        at = after.replace(microsecond=0) - _REACH  # offsets change at whole seconds
        seen = self._wall(at)  # what the wall clock has shown
        while at <= until:
            here = self._wall(at)
            offset = here - at.replace(tzinfo=None)
            coming = self.cron.first(min(here, seen))
            if coming is None:
                return
            if coming - here > 2 * _REACH:  # nothing is named for long: what the clock does meanwhile does not matter
                at = (coming - offset).replace(tzinfo=UTC) - _REACH
                seen = self._wall(at)
                continue
            end = self._change(at)
            first = max(here, seen) if self.cron.fixed else here
            skipped = self.cron.fixed and self.cron.count(seen, here) > 0 and not self.cron.matches(here)
            yield _Run(at, offset, first, here + (end - at), skipped)
            seen, at = max(seen, here + (end - at)), end

    def _wall(self, at: datetime) -> datetime:
        return at.astimezone(self.zone).replace(tzinfo=None)

    def _offset(self, at: datetime) -> timedelta:
        return self._wall(at) - at.replace(tzinfo=None)

    def _change(self, at: datetime) -> datetime:
        """When the offset changes within a day, to the second; else a day later."""
        low, high = 0, 86_400
        offset = self._offset(at)
        if self._offset(at + _DAY) == offset:
            return at + _DAY
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(at + timedelta(seconds=middle)) == offset else (low, middle)
        return at + timedelta(seconds=high)


def _part(run: _Run, after: datetime, until: datetime) -> tuple[datetime, datetime]:
    """The wall clock of a run that lies after `after` and not after `until`."""
    since = (after + _TICK).replace(tzinfo=None) + run.offset
    to = (until + _TICK).replace(tzinfo=None) + run.offset
    return max(run.first, since), min(run.last, to)


@dataclass(frozen=True, slots=True)
class IntervalTimeline:
    """The multiples of an interval since an instant, in both directions."""

    every: timedelta
    anchor: datetime

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The due times after `after` up to and including `until`, ascending."""
        at = self.anchor + ((after - self.anchor) // self.every + 1) * self.every
        while at <= until:
            yield at
            at += self.every

    def count(self, after: datetime, until: datetime) -> int:
        """How many there are after `after` up to and including `until`."""
        return max((until - self.anchor) // self.every - (after - self.anchor) // self.every, 0)
