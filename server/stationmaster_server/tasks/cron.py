"""Cron expressions of five fields, as wall-clock times: what days, and what minutes of the day."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from math import ceil

from cronsim import CronSim, CronSimError

from stationmaster_server.errors import InvalidArgument

MOST_CHARACTERS = 250
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# What is allowed, and where the field stands.
_FIELDS = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31, L (the last) or LW (the last weekday)"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of week", "0 to 7 or SUN to SAT (0 and 7 are Sunday), 5L (the last Friday) or 5#2 (the second Friday)"),
)
_DAY = timedelta(days=1)
_YEARS = 50  # the rarest date there is, a 29 February on a given weekday, comes within 40


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression; times are naive wall-clock times.

    `clock`: the minutes of a day, ascending. `fixed`: it names times of the day (neither the minute nor the hour begins
    with `*`), as opposed to running all through the day or an hour.
    """

    clock: tuple[int, ...]
    fixed: bool
    months: frozenset[int]
    days: CronSim

    def in_words(self) -> str:
        """What it means, for people."""
        return self.days.explain()

    def matches(self, wall: datetime) -> bool:
        """Whether it names this minute."""
        return self.count(wall, wall + timedelta(minutes=1)) == 1

    def first(self, start: datetime) -> datetime | None:
        """The first time at or after `start`; None when there is none for 50 years."""
        last = date(min(start.year + _YEARS, date.max.year - 1), 1, 1)
        for day in self._days(start.date(), last):
            index = self._index(day, start)
            if index < len(self.clock):
                return _at(day, self.clock[index])
        return None

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The times from `start` until before `end`."""
        for day in self._days(start.date(), end.date()):
            for minute in self.clock[self._index(day, start) : self._index(day, end)]:
                yield _at(day, minute)

    def count(self, start: datetime, end: datetime) -> int:
        """How many there are from `start` until before `end`."""
        days = self._days(start.date(), end.date())
        return sum(max(self._index(day, end) - self._index(day, start), 0) for day in days)

    def _days(self, first: date, last: date) -> Iterator[date]:
        day = first
        while day <= last:
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            if self.days.match_day(day):
                yield day
            day += _DAY

    def _index(self, day: date, wall: datetime) -> int:
        """How many of the day's times come before `wall`."""
        if wall.date() != day:
            return 0 if wall.date() < day else len(self.clock)
        return bisect_left(self.clock, ceil((wall - datetime.combine(day, time())) / timedelta(minutes=1)))


def _at(day: date, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, *divmod(minute, 60))  # noqa: DTZ001 - a wall-clock time


@lru_cache(maxsize=4096)
def _parse(expression: str) -> Cron:
    sim = CronSim(expression, datetime(2001, 1, 1))  # noqa: DTZ001
    minute, hour, *_ = expression.split()
    clock = tuple(sorted(h * 60 + m for h in sim.hours for m in sim.minutes))
    fixed = not minute.startswith("*") and not hour.startswith("*")
    return Cron(clock, fixed, frozenset(sim.months), sim)


def parse(expression: str, path: str = "cron") -> Cron:
    """Read an expression; InvalidArgument at `path` names the field of it that is wrong."""
    text = _expand(expression, path)
    try:
        cron = _parse(text)
    except CronSimError:
        raise _wrong(text, path) from None
    if cron.first(datetime(2001, 1, 1)) is None:  # noqa: DTZ001
        raise _never(text, path)
    return cron


def _expand(expression: str, path: str) -> str:
    if len(expression) > MOST_CHARACTERS:
        raise InvalidArgument.field(path, f"the expression is longer than {MOST_CHARACTERS} characters")
    words = expression.split()
    if len(words) == 1 and words[0].startswith("@"):
        text = _NICKNAMES.get(words[0].lower())
        if text is None:
            raise InvalidArgument.field(path, f"{words[0]!r} is not known: write one of {', '.join(_NICKNAMES)}")
        return text
    if len(words) == 6:
        raise InvalidArgument.field(
            path, f"{expression!r} has six fields, the first of which would be seconds: write the other five"
        )
    if len(words) != 5:
        names = ", ".join(name for name, _ in _FIELDS)
        raise InvalidArgument.field(path, f"{expression!r} has {len(words)} fields: write five: {names}")
    return " ".join(words).upper()


def _wrong(text: str, path: str) -> InvalidArgument:
    for index, (word, (name, allowed)) in enumerate(zip(text.split(), _FIELDS, strict=True)):
        alone = ["*"] * 5
        alone[index] = word
        try:
            _parse(" ".join(alone))
        except CronSimError:
            wrong = f"the {name} field, {word!r}, is wrong"
            return InvalidArgument.field(
                path, f"{wrong}: write {allowed}; or `*`, a range (1-5), steps (*/2), a list (1,2)"
            )
    return _never(text, path)


def _never(text: str, path: str) -> InvalidArgument:
    _, _, day, month, weekday = text.split()
    return InvalidArgument.field(
        path,
        f"no date is ever the one that the day of month field, {day!r}, the month field, {month!r}, and the day of week"
        f" field, {weekday!r}, ask for",
    )
