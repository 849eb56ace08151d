"""The transition table, and what an outcome leads to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.work.model import (
    FINAL,
    TRANSITIONS,
    Cancelled,
    Failed,
    Released,
    RetryPolicy,
    State,
    Succeeded,
    Suspended,
    may_become,
)
from stationmaster_server.work.retry import decide, delay_seconds

EXACT = RetryPolicy(jitter=0.0)


def test_the_transition_table_names_every_state() -> None:
    assert set(TRANSITIONS) == set(State)


def test_only_the_dead_rise() -> None:
    assert {state for state in FINAL if TRANSITIONS[state]} == {State.DEAD}


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Succeeded({"n": 1}), State.SUCCEEDED),
        (Released(), State.QUEUED),
        (Suspended(), State.SUSPENDED),
        (Cancelled(), State.CANCELLED),
        (Failed("broken"), State.QUEUED),
        (Failed("broken", retryable=False), State.DEAD),
    ],
)
def test_every_outcome_leads_to_a_state_that_the_table_has(outcome: object, state: State) -> None:
    assert decide(outcome, 1, EXACT).state is state  # type: ignore[arg-type]
    assert may_become(State.RUNNING, state)


def test_the_default_waits_two_to_the_n_seconds_up_to_five_minutes() -> None:
    assert [delay_seconds(attempt, EXACT) for attempt in range(1, 12)] == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_three_attempts_are_made_by_default() -> None:
    assert [decide(Failed("broken"), attempt, RetryPolicy()).state for attempt in (1, 2, 3)] == [
        State.QUEUED,
        State.QUEUED,
        State.DEAD,
    ]


@given(attempt=st.integers(1, 5000), jitter=st.floats(0, 1), factor=st.floats(1, 10))
def test_jitter_stays_within_its_share_of_the_delay(attempt: int, jitter: float, factor: float) -> None:
    exact = delay_seconds(attempt, RetryPolicy(jitter=0.0, factor=factor))
    assert exact <= 300
    assert exact * (1 - jitter) - 1e-6 <= delay_seconds(attempt, RetryPolicy(jitter=jitter, factor=factor))
    assert delay_seconds(attempt, RetryPolicy(jitter=jitter, factor=factor)) <= min(300, exact * (1 + jitter) + 1e-6)


def test_a_reason_that_the_policy_excludes_is_not_retried() -> None:
    policy = RetryPolicy(non_retryable=frozenset({"BAD_INPUT"}))
    assert decide(Failed("no", reason="BAD_INPUT"), 1, policy).state is State.DEAD
    assert decide(Failed("no", reason="OTHER"), 1, policy).state is State.QUEUED


def test_handing_back_and_suspending_count_as_no_attempt() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert decide(Released(at), 1, EXACT).refund
    assert decide(Released(at), 1, EXACT).run_at == at
    assert decide(Suspended(), 1, EXACT).refund


def test_a_failure_may_say_when_to_come_again() -> None:
    assert decide(Failed("busy", retry_after=timedelta(seconds=7)), 1, EXACT).delay_seconds == 7


def test_an_error_is_stored_without_what_the_database_refuses() -> None:
    decision = decide(Failed("a\x00b\ud83d" + "x" * 10_000), 1, EXACT)
    assert decision.error is not None
    assert decision.error["error"].startswith("ab?xxx")
    assert len(decision.error["error"]) <= 8192
