"""Cron in time zones: right over every change of the clock, as a minute-by-minute look at it shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks import cron
from stationmaster_server.tasks.timeline import CronTimeline, IntervalTimeline

MINUTE = timedelta(minutes=1)
Sets = tuple[frozenset[int], ...]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local_times(expression: str, zone: str, start: str, end: str) -> list[str]:
    """The due times between two UTC instants as the clock of the zone shows them, with its offset."""
    timeline = CronTimeline(cron.parse(expression), ZoneInfo(zone))
    due = [at.astimezone(ZoneInfo(zone)) for at in timeline.between(utc(start), utc(end))]
    return [f"{at:%m-%d %H:%M%z}" for at in due]


@pytest.mark.parametrize(
    ("expression", "zone", "start", "end", "expected"),
    [
        # Forward: 02:00 becomes 03:00.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28 12:00",
            "2026-03-30 12:00",
            ["03-29 03:00+0200", "03-30 02:30+0200"],
        ),
        ("15,45 2 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 12:00", ["03-29 03:00+0200"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 12:00", ["03-29 03:00+0200"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 12:00", []),
        (
            "0 * * * *",
            "Europe/Berlin",
            "2026-03-28 23:30",
            "2026-03-29 02:00",
            ["03-29 01:00+0100", "03-29 03:00+0200", "03-29 04:00+0200"],
        ),
        # Back: 03:00 becomes 02:00.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24 12:00",
            "2026-10-26 12:00",
            ["10-25 02:30+0200", "10-26 02:30+0100"],
        ),
        (
            "*/30 2 * * *",
            "Europe/Berlin",
            "2026-10-24 12:00",
            "2026-10-25 12:00",
            ["10-25 02:00+0200", "10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100"],
        ),
        (
            "0 * * * *",
            "America/New_York",
            "2026-11-01 04:30",
            "2026-11-01 07:00",
            ["11-01 01:00-0400", "11-01 01:00-0500", "11-01 02:00-0500"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-10-31 12:00",
            "2026-11-02 12:00",
            ["11-01 01:30-0400", "11-02 01:30-0500"],
        ),
        # Half an hour, in the south: 02:00 becomes 02:30 in October, and 01:30 in April.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03 00:00", "2026-10-04 12:00", ["10-04 02:30+1100"]),
        (
            "*/20 5 * * *",
            "Australia/Lord_Howe",
            "2026-10-03 12:00",
            "2026-10-04 12:00",
            ["10-04 05:00+1100", "10-04 05:20+1100", "10-04 05:40+1100"],
        ),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 00:00", "2026-04-05 12:00", ["04-05 01:45+1100"]),
        (
            "45 * * * *",
            "Australia/Lord_Howe",
            "2026-04-04 14:00",
            "2026-04-04 16:30",
            ["04-05 01:45+1100", "04-05 01:45+1030", "04-05 02:45+1030"],
        ),
        # Midnight does not exist; a day does not exist; a zone gives up summer time for good.
        ("*/20 0 * * *", "America/Sao_Paulo", "2018-11-03 12:00", "2018-11-04 12:00", []),
        (
            "0 0 * * *",
            "America/Sao_Paulo",
            "2018-11-03 12:00",
            "2018-11-05 12:00",
            ["11-04 01:00-0200", "11-05 00:00-0200"],
        ),
        (
            "0 12 * * *",
            "Pacific/Apia",
            "2011-12-29 12:00",
            "2011-12-31 12:00",
            ["12-29 12:00-1000", "12-31 00:00+1400", "12-31 12:00+1400"],
        ),
        (
            "30 2 * * *",
            "Europe/Moscow",
            "2011-03-26 12:00",
            "2011-03-28 12:00",
            ["03-27 03:00+0400", "03-28 02:30+0400"],
        ),
        (
            "30 1 * * *",
            "Europe/Moscow",
            "2014-10-25 12:00",
            "2014-10-26 23:00",
            ["10-26 01:30+0400", "10-27 01:30+0300"],
        ),
    ],
)
def test_changes_of_the_clock_follow_the_rule(
    expression: str, zone: str, start: str, end: str, expected: list[str]
) -> None:
    assert local_times(expression, zone, start, end) == expected


# Zones and days around which their clocks change, in every way that clocks have changed.
TENS, DAYS = frozenset(range(0, 60, 10)), frozenset(range(32))
CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-04"),
    ("Australia/Lord_Howe", "2026-10-03"),
    ("America/Santiago", "2026-04-05"),
    ("America/Santiago", "2026-09-06"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Africa/Casablanca", "2026-03-22"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2019-02-17"),
    ("America/Havana", "2026-11-01"),
    ("America/St_Johns", "2006-10-29"),  # at 00:01
    ("America/St_Johns", "2006-04-02"),
    ("America/Caracas", "2016-05-01"),
    ("Asia/Pyongyang", "2018-05-04"),
    ("Asia/Kathmandu", "1985-12-31"),  # by a quarter of an hour
    ("Europe/Istanbul", "2016-03-27"),  # the last one
    ("Europe/Moscow", "2014-10-26"),
    ("Pacific/Apia", "2011-12-30"),  # a day is left out
    ("Antarctica/Troll", "2026-03-29"),  # by two hours
    ("Asia/Kolkata", "2026-03-29"),  # never
    ("UTC", "2026-03-29"),
]


@st.composite
def a_field(draw: st.DrawFn, low: int, high: int) -> tuple[str, frozenset[int]]:
    """A field of an expression, and what it stands for."""
    kind = draw(st.sampled_from(["*", "*/n", "list", "range"]))
    if kind == "*":
        return "*", frozenset(range(low, high + 1))
    if kind == "*/n":
        step = draw(st.integers(1, high))
        return f"*/{step}", frozenset(range(low, high + 1, step))
    if kind == "range":
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        return f"{first}-{last}", frozenset(range(first, last + 1))
    named = draw(st.lists(st.integers(low, high), min_size=1, max_size=3))
    return ",".join(map(str, named)), frozenset(named)


@st.composite
def an_expression(draw: st.DrawFn) -> tuple[str, Sets]:
    """An expression, and the sets it stands for; days are left alone more often than not."""
    fields = [draw(a_field(0, 59)), draw(a_field(0, 23))]
    for low, high in ((1, 31), (1, 12), (0, 6)):
        free = draw(st.integers(0, 3)) > 0
        fields.append(("*", frozenset(range(low, high + 1))) if free else draw(a_field(low, high)))
    return " ".join(text for text, _ in fields), tuple(named for _, named in fields)


def names(expression: str, sets: Sets, wall: datetime) -> bool:
    """Whether an expression names a minute, told from the sets alone."""
    minutes, hours, days, months, weekdays = sets
    _, _, day, _, weekday = expression.split()
    of_month, of_week = wall.day in days, wall.isoweekday() % 7 in weekdays
    day_fits = of_month and of_week if day.startswith("*") or weekday.startswith("*") else of_month or of_week
    return wall.minute in minutes and wall.hour in hours and wall.month in months and day_fits


def by_looking(expression: str, sets: Sets, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """The due times after `start` up to `end`, found by looking at the clock every minute.

    An expression that names times of the day is due when the clock gets to or past such a time for the first time; any
    other one whenever the clock shows what it names.
    """
    first = start - timedelta(days=2)
    shown = first.astimezone(zone).replace(tzinfo=None)
    fixed = not any(word.startswith("*") for word in expression.split()[:2])
    found = []
    at = first
    while at < end:
        at += MINUTE
        wall = at.astimezone(zone).replace(tzinfo=None)
        reached = [wall]
        if fixed:
            reached = [shown + MINUTE * n for n in range(1, int((wall - shown) / MINUTE) + 1)]
        if at > start and any(names(expression, sets, time) for time in reached):
            found.append(at)
        shown = max(shown, wall)
    return found


@settings(deadline=None, max_examples=100)
@given(an_expression(), st.sampled_from(CHANGES), st.integers(-1440, 1440))
@example(
    ("*/10 5 * * *", (frozenset(range(0, 60, 10)), frozenset({5}), *([frozenset(range(32))] * 3))),
    ("Australia/Lord_Howe", "2026-10-03"),
    0,
)
def test_due_times_are_those_that_a_look_at_the_clock_every_minute_finds(
    expression: tuple[str, Sets], change: tuple[str, str], shift: int
) -> None:
    text, sets = expression
    zone = ZoneInfo(change[0])
    start = utc(change[1]) - timedelta(hours=24) + shift * MINUTE
    end = start + timedelta(hours=60)
    try:
        timeline = CronTimeline(cron.parse(text), zone)
    except InvalidArgument:  # a date that never comes
        reject()
    expected = by_looking(text, sets, zone, start, end)
    due = list(timeline.between(start, end))
    assert due == expected
    assert all(one < other for one, other in pairwise(due))
    assert timeline.count(start, end) == len(expected)
    # Cut anywhere, the parts are the whole.
    middle = start + (end - start) / 3
    assert [*timeline.between(start, middle), *timeline.between(middle, end)] == due
    assert timeline.count(start, middle) + timeline.count(middle, end) == len(due)


def test_a_year_of_minutes_is_counted_without_going_through_it() -> None:
    timeline = CronTimeline(cron.parse("* * * * *"), ZoneInfo("Europe/Berlin"))
    assert timeline.count(utc("2020-01-01 00:00"), utc("2026-01-01 00:00")) == (6 * 365 + 2) * 24 * 60


def test_what_is_due_once_in_many_years_is_found() -> None:
    assert local_times("0 0 29 2 */7", "Europe/Berlin", "2032-03-01 00:00", "2089-01-01 00:00") == [
        "02-29 00:00+0100",
        "02-29 00:00+0100",
    ]


@given(st.integers(10, 100_000), st.integers(-(10**9), 10**9), st.integers(0, 100_000))
def test_intervals_are_multiples_since_their_anchor(every: int, offset: int, length: int) -> None:
    anchor = utc("2026-01-01 00:00")
    timeline = IntervalTimeline(timedelta(seconds=every), anchor)
    after = anchor + timedelta(seconds=offset)
    until = after + timedelta(seconds=length)
    due = list(timeline.between(after, until))
    assert len(due) == timeline.count(after, until)
    assert due == [
        anchor + timedelta(seconds=second) for second in range(offset + 1, offset + length + 1) if second % every == 0
    ]
