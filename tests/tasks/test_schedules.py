"""Schedules: what is refused, what is previewed, and that nothing is due twice or never."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from unittest import mock
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks import schedules
from stationmaster_server.tasks.schedule_model import DueTime, Overlap, Schedule
from stationmaster_server.tasks.schedules import check, count_due, due_between, last_due, next_times

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NOON = utc("2026-03-01 12:00")
HOURLY = Schedule(cron="@hourly")


@pytest.mark.parametrize(
    ("schedule", "field", "said"),
    [
        (Schedule(), "schedule", "write either `cron` or `every`"),
        (Schedule(cron="@daily", every=HOUR), "schedule", "write either `cron` or `every`"),
        (Schedule(cron="0 25 * * *"), "schedule.cron", "the hour field, '25'"),
        (Schedule(every=timedelta(seconds=9)), "schedule.every", "from 10 s to"),
        (Schedule(every=timedelta(days=400)), "schedule.every", "to 31622400 s"),
        (replace(HOURLY, time_zone="Europe/Bonn"), "schedule.time_zone", "'Europe/Bonn' is no time zone of the IANA"),
        (replace(HOURLY, time_zone=""), "schedule.time_zone", "is no time zone"),
        (replace(HOURLY, time_zone="Europe"), "schedule.time_zone", "is no time zone"),
        (replace(HOURLY, time_zone="../../etc/passwd"), "schedule.time_zone", "is no time zone"),
        (replace(HOURLY, time_zone="/etc/localtime"), "schedule.time_zone", "is no time zone"),
        (replace(HOURLY, time_zone="localtime"), "schedule.time_zone", "is no time zone"),
        (replace(HOURLY, time_zone="right/Europe/Berlin"), "schedule.time_zone", "is no time zone"),
        (replace(HOURLY, time_zone="Europe/Berlin\0"), "schedule.time_zone", "is no time zone"),
        (replace(HOURLY, time_zone="x" * 9999), "schedule.time_zone", "is no time zone"),
        (replace(HOURLY, catch_up=timedelta(seconds=1)), "schedule.catch_up", "from 10 s to"),
        (replace(HOURLY, jitter=timedelta(days=2)), "schedule.jitter", "from 0 s to 86400 s"),
        (replace(HOURLY, jitter=-HOUR), "schedule.jitter", "from 0 s"),
        (replace(HOURLY, start=utc("1902-01-01")), "schedule.start", "from 1970"),
        (replace(HOURLY, end=utc("9999-01-01")), "schedule.end", "to before 9000"),
        (replace(HOURLY, start=NOON, end=NOON - HOUR), "schedule.end", "it is before the start"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_field(schedule: Schedule, field: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check(schedule)
    assert said in refused.value.message
    assert [violation.field for violation in refused.value.violations] == [field]


def test_what_can_be_is_let_through() -> None:
    check(HOURLY)
    check(Schedule(every=timedelta(seconds=90), start=NOON, end=NOON, jitter=HOUR, overlap=Overlap.ALLOW_ALL))
    check(Schedule(cron="0 9 * * 1-5", time_zone="Australia/Lord_Howe"))


def test_a_machine_without_time_zone_data_says_so() -> None:
    with (
        mock.patch.object(schedules, "_load", side_effect=ZoneInfoNotFoundError("none")),
        pytest.raises(InvalidArgument, match="installs the package `tzdata`"),
    ):
        check(replace(HOURLY, time_zone="Europe/Berlin"))


def test_start_and_end_are_the_first_and_last_instant_that_may_be_due() -> None:
    bounded = replace(HOURLY, start=NOON, end=NOON + 2 * HOUR)
    dues = [NOON, NOON + HOUR, NOON + 2 * HOUR]
    assert [due.due_at for due in next_times(bounded, NOON - timedelta(days=9), 10)] == dues
    assert [due.due_at for due in next_times(bounded, NOON, 10)] == dues[1:]
    assert next_times(bounded, dues[-1], 10) == []
    far = utc("2200-01-01")
    assert next_times(replace(HOURLY, start=far), NOON, 1)[0].due_at == far


def test_an_interval_counts_from_the_start_of_its_schedule() -> None:
    start = datetime(2026, 3, 1, 12, 7, tzinfo=ZoneInfo("Asia/Kathmandu"))
    every = Schedule(every=90 * MINUTE, start=start)
    times = next_times(every, start - HOUR, 2)
    assert [due.due_at for due in times] == [start, start + 90 * MINUTE]
    assert {due.due_at.tzinfo for due in times} == {UTC}
    assert next_times(Schedule(every=HOUR), NOON + MINUTE, 1)[0].due_at == NOON + HOUR


def test_jitter_is_the_same_for_everybody_and_differs_between_tasks_and_times() -> None:
    spread = replace(HOURLY, jitter=30 * MINUTE)
    one = next_times(spread, NOON, 50, seed="tasks/one")
    assert one == [next_times(spread, due.due_at - MINUTE, 1, seed="tasks/one")[0] for due in one]
    delays = [due.fires_at - due.due_at for due in one]
    assert all(timedelta(0) <= delay < 30 * MINUTE for delay in delays)
    assert len(set(delays)) > 40
    assert one != next_times(spread, NOON, 50, seed="tasks/two")
    # Published, so that no release moves what has been announced.
    assert one[0] == DueTime(NOON + HOUR, NOON + HOUR + timedelta(minutes=22, seconds=44))


def test_jitter_ends_before_the_next_due_time() -> None:
    spread = Schedule(every=10 * MINUTE, jitter=timedelta(days=1))
    times = next_times(spread, NOON, 200, seed="tasks/one")
    assert all(due.fires_at < following.due_at for due, following in pairwise(times))


def test_times_past_all_bounds_have_nothing_due() -> None:
    assert next_times(HOURLY, utc("9998-01-01"), 3) == []
    assert next_times(HOURLY, datetime.min.replace(tzinfo=UTC), 1)[0].due_at == utc("1970-01-01 01:00")


SCHEDULES = st.builds(
    Schedule,
    cron=st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0 9 1 * *", "15,45 1-3 * * SUN", "0 0 29 2 *"]),
    time_zone=st.sampled_from(["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "UTC"]),
    jitter=st.sampled_from([timedelta(0), MINUTE, HOUR, timedelta(days=1)]),
    start=st.sampled_from([None, utc("2026-03-20")]),
    end=st.sampled_from([None, utc("2026-04-10 00:30")]),
)


@settings(deadline=None)
@given(SCHEDULES, st.integers(0, 60 * 24 * 40), st.integers(0, 60 * 24 * 8), st.integers(1, 50))
def test_what_is_due_is_the_beginning_of_what_was_previewed(
    schedule: Schedule, start: int, length: int, most: int
) -> None:
    after = NOON + start * MINUTE
    until = after + length * MINUTE
    preview = next_times(schedule, after, 1000, seed="tasks/one")
    assert all(one.due_at <= one.fires_at < other.due_at for one, other in pairwise(preview))
    ready = [due for due in preview if due.fires_at <= until]
    assert due_between(schedule, after, until, most, seed="tasks/one") == ready[:most]
    if len(ready) < len(preview):
        assert count_due(schedule, after, until, seed="tasks/one") == (len(ready), ready[-1] if ready else None)


def test_the_last_due_time_is_found_however_rare_it_is() -> None:
    for expression, expected in [
        ("* * * * *", "2026-03-01 12:00"),
        ("0 11 * * *", "2026-03-01 11:00"),
        ("0 11 3 * *", "2026-02-03 11:00"),
        ("0 11 3 5 *", "2025-05-03 11:00"),
        ("0 11 29 2 *", "2024-02-29 11:00"),
    ]:
        last = last_due(Schedule(cron=expression), utc("1980-01-01"), NOON)
        assert last is not None
        assert last.due_at == utc(expected)
