"""When a schedule is due and when it fires: checked, previewed and counted. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks import cron
from stationmaster_server.tasks.schedule_model import DueTime, Schedule
from stationmaster_server.tasks.timeline import CronTimeline, IntervalTimeline

SHORTEST_INTERVAL = timedelta(seconds=10)
SHORTEST_CATCH_UP = timedelta(seconds=10)
LONGEST = timedelta(days=366)
LONGEST_JITTER = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = _EPOCH, datetime(9000, 1, 1, tzinfo=UTC)
_HORIZON = timedelta(days=366 * 50)  # the rarest date comes within 40 years
_TICK = timedelta(microseconds=1)
# Not names of places: what they mean differs between machines, or between their clocks.
_NO_ZONES = ("localtime", "posixrules", "posix/", "right/", "Factory")


class Timeline(Protocol):
    """The due times of a schedule between two instants, the first excluded, the second included."""

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The due times, ascending, in UTC."""
        ...

    def count(self, after: datetime, until: datetime) -> int:
        """How many there are, found without going through them."""
        ...


def check(schedule: Schedule, path: str = "schedule") -> None:
    """InvalidArgument naming the field under `path` that cannot be."""
    _timeline(schedule, path)
    _check_span(schedule.catch_up, SHORTEST_CATCH_UP, LONGEST, f"{path}.catch_up")
    _check_span(schedule.jitter, timedelta(0), LONGEST_JITTER, f"{path}.jitter")
    for name in ("start", "end"):
        at = getattr(schedule, name)
        if at is not None and not _FIRST <= at <= _LAST:
            raise InvalidArgument.field(f"{path}.{name}", f"write a time from {_FIRST:%Y} to before {_LAST:%Y}")
    if schedule.start is not None and schedule.end is not None and schedule.end < schedule.start:
        raise InvalidArgument.field(f"{path}.end", "it is before the start: nothing would ever be due")


def next_times(schedule: Schedule, after: datetime, count: int, *, seed: str = "") -> list[DueTime]:
    """The next due times after `after`, at most `count`; `seed` (the task) decides their jitter."""
    after = min(max(after, schedule.start - _TICK if schedule.start else _FIRST), _LAST)
    dues = _between(schedule, after, after + _HORIZON)
    return list(_fire_times(schedule, islice(dues, count + 1), count, seed))


def due_between(schedule: Schedule, after: datetime, until: datetime, most: int, *, seed: str = "") -> list[DueTime]:
    """The first `most` due times after `after` that fire at or before `until`."""
    return [due for due in next_times(schedule, after, most, seed=seed) if due.fires_at <= until]


def count_due(schedule: Schedule, after: datetime, until: datetime, *, seed: str = "") -> tuple[int, DueTime | None]:
    """How many due times after `after` fire at or before `until`, and the last of them.

    Without going through them: a year of minutes takes some milliseconds.
    """
    last = last_due(schedule, after, until, seed=seed)
    if last is None:
        return 0, None
    timeline, low, high = _clipped(schedule, after, last.due_at)
    return timeline.count(low, high), last


def last_due(schedule: Schedule, after: datetime, until: datetime, *, seed: str = "") -> DueTime | None:
    """The last due time after `after` that fires at or before `until`."""
    at = _last_before(schedule, after, until)
    while at is not None:
        (due,) = next_times(schedule, at - _TICK, 1, seed=seed)
        if due.fires_at <= until:
            return due
        at = _last_before(schedule, after, at - _TICK)
    return None


def _last_before(schedule: Schedule, after: datetime, until: datetime) -> datetime | None:
    """The last due time in the span, looked for in growing parts of it: where it is dense, a small one has it."""
    for reach in (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=366), _HORIZON):
        since = max(after, until - reach)
        last = None
        for last in _between(schedule, since, until):  # noqa: B007 - the last is wanted
            pass
        if last is not None or since <= after:
            return last
    return None


def _fire_times(schedule: Schedule, dues: Iterator[datetime], count: int, seed: str) -> Iterator[DueTime]:
    """Each due time with its jitter, which ends before the next one is due: the order stays."""
    due = next(dues, None)
    for _ in range(count):
        if due is None:
            return
        coming = next(dues, None)
        room = schedule.jitter if coming is None else min(schedule.jitter, coming - due)
        yield DueTime(due, due + _delay(seed, due, int(room.total_seconds())))
        due = coming


def _delay(seed: str, due: datetime, below_seconds: int) -> timedelta:
    """Whole seconds, the same on every server."""
    if below_seconds < 1:
        return timedelta(0)
    digest = blake2b(f"{seed}/{int(due.timestamp())}".encode(), digest_size=8).digest()
    return timedelta(seconds=int.from_bytes(digest) % below_seconds)


def _between(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    timeline, low, high = _clipped(schedule, after, until)
    return timeline.between(low, high)


def _clipped(schedule: Schedule, after: datetime, until: datetime) -> tuple[Timeline, datetime, datetime]:
    """The schedule's timeline and the part of a span that lies within its start and end."""
    low = max(after, _FIRST) if schedule.start is None else max(after, schedule.start - _TICK)
    high = min(until, _LAST) if schedule.end is None else min(until, schedule.end)
    return _timeline(schedule, "schedule"), low.astimezone(UTC), high.astimezone(UTC)


def _timeline(schedule: Schedule, path: str) -> Timeline:
    if (schedule.every is None) == (schedule.cron == ""):
        raise InvalidArgument.field(path, "write either `cron` or `every`")
    if schedule.every is not None:
        _check_span(schedule.every, SHORTEST_INTERVAL, LONGEST, f"{path}.every")
        return IntervalTimeline(schedule.every, (schedule.start or _EPOCH).astimezone(UTC))
    return CronTimeline(cron.parse(schedule.cron, f"{path}.cron"), zone(schedule.time_zone, f"{path}.time_zone"))


def _check_span(value: timedelta, least: timedelta, most: timedelta, path: str) -> None:
    if not least <= value <= most:
        raise InvalidArgument.field(
            path, f"write a duration from {int(least.total_seconds())} s to {int(most.total_seconds())} s"
        )


@lru_cache(maxsize=1024)
def _load(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def zone(name: str, path: str = "time_zone") -> ZoneInfo:
    """A time zone by its IANA name; InvalidArgument at `path`."""
    try:
        if name.startswith(_NO_ZONES) or len(name) > 100:
            raise ValueError("no place")
        return _load(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    try:
        _load("UTC")
    except ZoneInfoNotFoundError:
        raise InvalidArgument.field(
            path, "this server has no time zone data: its operator installs the package `tzdata`"
        ) from None
    raise InvalidArgument.field(
        path, f"{name[:100]!r} is no time zone of the IANA database: write one such as Europe/Berlin or UTC"
    )
