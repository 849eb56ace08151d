"""The attempts that a report tells of are those there were, also those that nobody could tell of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from stationmaster_server.events.model import Event
from stationmaster_server.tasks.model import Attempt, Execution, ExecutionState, Trigger
from stationmaster_server.tasks.reports.attempts import attempts_of

BEGIN = datetime(2026, 11, 26, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def changed(seconds: float, state: str, attempt: int, **body: str) -> Event:
    return Event(
        uuid4(), int(seconds), "execution_state_changed", {"state": state, "attempt": attempt, **body}, at(seconds)
    )


def ended(*failures: Attempt, state: ExecutionState = ExecutionState.FAILED, after: float = 10) -> Execution:
    return Execution(
        uuid4(), uuid4(), "x", state, Trigger.AD_HOC, BEGIN, failed_attempts=failures, finished_at=at(after)
    )


def test_an_attempt_that_timed_out_or_lost_its_server_has_its_end_and_its_error() -> None:
    execution = ended(
        Attempt(1, "the attempt took longer than 3 s", "START_TO_CLOSE", at(4)), state=ExecutionState.SUCCEEDED
    )
    events = [changed(1, "RUNNING", 1), changed(6, "RUNNING", 2), changed(10.5, "SUCCEEDED", 2)]
    first, second = attempts_of(execution, events)
    assert (first.state, first.finished_at) == ("FAILED", at(4))
    assert first.error == "START_TO_CLOSE: the attempt took longer than 3 s"
    assert (second.state, second.started_at, second.finished_at) == ("SUCCEEDED", at(6), at(10))


def test_an_attempt_that_handed_itself_back_is_one() -> None:
    events = [*(changed(seconds, "RUNNING", 1) for seconds in (1, 2, 3)), changed(10, "SUCCEEDED", 1)]
    (attempt,) = attempts_of(ended(state=ExecutionState.SUCCEEDED), events)
    assert (attempt.started_at, attempt.finished_at) == (at(1), at(10))


def test_the_last_attempt_has_the_reason_of_its_own_and_a_retry_by_hand_begins_anew() -> None:
    failures = [Attempt(number, f"broken {number}", "STATUS", None) for number in (1, 2, 1)]
    events = [
        changed(1, "RUNNING", 1),
        changed(2, "QUEUED", 1, message="broken 1", reason="STATUS"),
        changed(3, "RUNNING", 2),
        changed(4, "FAILED", 2, message="broken 2", reason="ATTEMPTS_EXHAUSTED"),
        changed(5, "QUEUED", 0, reason="RETRIED"),
        changed(6, "RUNNING", 1),
        changed(9, "FAILED", 1, message="broken 1", reason="NOT_RETRYABLE"),
    ]
    assert [(each.number, each.error) for each in attempts_of(ended(*failures), events)] == [
        (1, "STATUS: broken 1"),
        (2, "STATUS: broken 2"),
        (1, "STATUS: broken 1"),
    ]
