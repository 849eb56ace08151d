"""What becomes of due times: overlap, the catch-up window, pauses; each is fired once or counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stationmaster_server.tasks.schedule_model import Decision, Overlap, Schedule, SkipReason
from stationmaster_server.tasks.schedule_rules import MOST_AT_ONCE, MOST_OPEN, decide, resume
from stationmaster_server.tasks.schedules import next_times

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EVERY_MINUTE = Schedule(cron="* * * * *", catch_up=10 * MINUTE)


def decided(schedule: Schedule, minutes_late: float, active: int = 0) -> Decision:
    """At noon, when nothing was done about the schedule for so long."""
    return decide(schedule, NOON - minutes_late * MINUTE, NOON, active=active, seed="one")


def fired(decision: Decision) -> list[int]:
    """How many minutes before noon those were due that fire."""
    return [int((NOON - due.due_at) / MINUTE) for due in decision.fire]


def test_nothing_is_done_before_it_is_due() -> None:
    decision = decide(EVERY_MINUTE, NOON, NOON + timedelta(seconds=59), active=0, seed="one")
    assert (decision.fire, decision.skipped, decision.settled_until) == ((), {}, NOON)
    assert decision.next is not None
    assert decision.next.fires_at == NOON + MINUTE


def test_what_is_due_fires_and_the_next_one_is_named() -> None:
    decision = decided(EVERY_MINUTE, 1)
    assert (fired(decision), decision.skipped, decision.settled_until) == ([0], {}, NOON)
    assert decision.next is not None
    assert decision.next.due_at == NOON + MINUTE


def test_skip_leaves_out_what_comes_while_another_runs() -> None:
    assert decided(EVERY_MINUTE, 1, active=1).skipped == {SkipReason.OVERLAP: 1}
    assert decided(EVERY_MINUTE, 1, active=1).fire == ()
    several = decided(EVERY_MINUTE, 4)
    assert (fired(several), several.skipped) == ([3], {SkipReason.OVERLAP: 3})


@pytest.mark.parametrize(("active", "fires"), [(0, [3, 2]), (1, [3]), (2, [])])
def test_buffer_one_lets_one_wait(active: int, fires: list[int]) -> None:
    decision = decided(replace(EVERY_MINUTE, overlap=Overlap.BUFFER_ONE), 4, active)
    assert (fired(decision), decision.skipped) == (fires, {SkipReason.OVERLAP: 4 - len(fires)})


def test_allow_all_fires_everything() -> None:
    decision = decided(replace(EVERY_MINUTE, overlap=Overlap.ALLOW_ALL), 4, active=7)
    assert (fired(decision), decision.skipped) == ([3, 2, 1, 0], {})


def test_no_schedule_has_more_open_than_it_may() -> None:
    allowing = replace(EVERY_MINUTE, overlap=Overlap.ALLOW_ALL)
    almost = decided(allowing, 4, active=MOST_OPEN - 2)
    assert (fired(almost), almost.skipped, almost.settled_until) == ([3, 2], {}, NOON - 2 * MINUTE)
    for schedule in (allowing, replace(EVERY_MINUTE, overlap=Overlap.CANCEL_OTHER)):
        full = decided(schedule, 4, active=MOST_OPEN)
        assert (fired(full), full.skipped, full.settled_until) == ([], {SkipReason.OVERLAP: 4}, NOON)


def test_cancel_other_fires_the_last() -> None:
    decision = decided(replace(EVERY_MINUTE, overlap=Overlap.CANCEL_OTHER), 4, active=1)
    assert (fired(decision), decision.skipped) == ([0], {SkipReason.OVERLAP: 3})


def test_what_is_older_than_the_catch_up_window_is_missed() -> None:
    decision = decided(replace(EVERY_MINUTE, overlap=Overlap.ALLOW_ALL), 60)
    assert fired(decision) == list(range(10, -1, -1))
    assert decision.skipped == {SkipReason.MISSED: 49}


def test_a_year_of_minutes_is_settled_at_once() -> None:
    year = 365 * 24 * 60
    decision = decided(EVERY_MINUTE, year)
    assert (fired(decision), decision.skipped) == ([10], {SkipReason.MISSED: year - 11, SkipReason.OVERLAP: 10})
    assert decision.settled_until == NOON


def test_a_long_way_to_catch_up_is_gone_in_steps() -> None:
    schedule = replace(EVERY_MINUTE, overlap=Overlap.ALLOW_ALL, catch_up=timedelta(days=1))
    first = decided(schedule, MOST_AT_ONCE + 20)
    assert len(first.fire) == MOST_AT_ONCE
    assert first.settled_until == first.fire[-1].due_at
    second = decide(schedule, first.settled_until, NOON, active=0, seed="one")
    assert fired(second) == list(range(19, -1, -1))


def test_after_the_end_nothing_comes() -> None:
    decision = decided(replace(EVERY_MINUTE, end=NOON - 2 * MINUTE, overlap=Overlap.ALLOW_ALL), 4)
    assert (fired(decision), decision.next) == ([3, 2], None)


def test_jitter_counts_from_when_a_due_time_fires() -> None:
    schedule = Schedule(cron="0 12 * * *", jitter=timedelta(hours=5), catch_up=10 * MINUTE)
    (due,) = next_times(schedule, NOON - MINUTE, 1, seed="one")
    assert due.fires_at > due.due_at + schedule.catch_up
    waiting = decide(schedule, NOON - MINUTE, due.fires_at - timedelta(seconds=1), active=0, seed="one")
    assert (waiting.fire, waiting.skipped, waiting.next) == ((), {}, due)
    assert decide(schedule, NOON - MINUTE, due.fires_at, active=0, seed="one").fire == (due,)
    late = due.fires_at + schedule.catch_up
    assert decide(schedule, NOON - MINUTE, late, active=0, seed="one").fire == (due,)
    too_late = decide(schedule, NOON - MINUTE, late + timedelta(seconds=1), active=0, seed="one")
    assert (too_late.fire, too_late.skipped) == ((), {SkipReason.MISSED: 1})


def test_what_comes_during_a_pause_is_counted_as_paused() -> None:
    decision = resume(EVERY_MINUTE, NOON - 30 * MINUTE, NOON, seed="one")
    assert (decision.fire, decision.skipped, decision.settled_until) == ((), {SkipReason.PAUSED: 30}, NOON)
    assert decision.next is not None
    assert decision.next.due_at == NOON + MINUTE


@settings(deadline=None)
@given(
    st.builds(
        Schedule,
        cron=st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "15,45 1-3 * * *"]),
        time_zone=st.sampled_from(["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe"]),
        overlap=st.sampled_from(Overlap),
        jitter=st.sampled_from([timedelta(0), timedelta(seconds=40), timedelta(hours=2)]),
        catch_up=st.sampled_from([timedelta(seconds=10), 30 * MINUTE, timedelta(days=2)]),
    ),
    st.lists(
        st.tuples(st.integers(1, 60 * 60 * 12), st.sampled_from([0, 1, 2, MOST_OPEN - 1, MOST_OPEN])),
        min_size=1,
        max_size=12,
    ),
)
def test_every_due_time_is_fired_once_or_counted_once(schedule: Schedule, looks: list[tuple[int, int]]) -> None:
    start = now = settled = datetime(2026, 3, 28, 20, tzinfo=UTC)
    fires, skipped = [], 0
    for seconds, active in looks:
        now += timedelta(seconds=seconds)
        decision = decide(schedule, settled, now, active=active, seed="one")
        assert all(now - schedule.catch_up <= due.fires_at <= now for due in decision.fire)
        assert settled <= decision.settled_until
        assert decision.next == next(iter(next_times(schedule, decision.settled_until, 1, seed="one")), None)
        settled = decision.settled_until
        fires += [due.due_at for due in decision.fire]
        skipped += sum(decision.skipped.values())
    assert fires == sorted(set(fires))
    preview = []
    after = start
    while page := next_times(schedule, after, 1000, seed="one"):
        preview += page
        after = page[-1].due_at
        if after > settled:
            break
    due = [time.due_at for time in preview if time.due_at <= settled]
    assert set(fires) <= set(due)
    assert len(fires) + skipped == len(due)
    more = [time for time in preview if time.due_at > settled and time.fires_at <= now]
    assert not more or len(decision.fire) == min(MOST_AT_ONCE, MOST_OPEN - active)
