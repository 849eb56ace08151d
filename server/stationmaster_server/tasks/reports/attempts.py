"""The attempts at an execution: when each ran, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from stationmaster_server.events.model import Event
from stationmaster_server.tasks.events import HANDED_BACK, STATE_CHANGED
from stationmaster_server.tasks.model import Attempt as Failed
from stationmaster_server.tasks.model import Execution, ExecutionState
from stationmaster_server.tasks.reports.model import Attempt


def attempts_of(execution: Execution, events: Sequence[Event]) -> tuple[Attempt, ...]:
    """By the changes of state: an attempt begins as RUNNING and ends with what follows.

    One that handed itself back goes on under its number. Of one that timed out, or whose server died, only the work
    item knows.
    """
    attempts: list[Attempt] = []
    failures = list(execution.failed_attempts)
    for event in events:
        if event.kind != STATE_CHANGED or event.body.get("reason") == HANDED_BACK:
            continue
        body = event.body
        last = attempts[-1] if attempts else None
        is_open = last is not None and last.finished_at is None
        if body["state"] == ExecutionState.RUNNING:
            if is_open and last is not None and last.number == body["attempt"]:
                continue
            if is_open and last is not None:
                attempts[-1] = _failed(last, _next(failures, last.number), event.created_at)
            attempts.append(Attempt(body["attempt"], event.created_at))
        elif is_open and last is not None:
            # The last event is written when the end is dealt with, which is after it.
            ended_at = min(event.created_at, execution.finished_at or event.created_at)
            if body.get("message"):
                failure = _next(failures, last.number) or Failed(0, body["message"], body.get("reason", ""), None)
                attempts[-1] = _failed(last, failure, ended_at)
            else:
                attempts[-1] = replace(last, finished_at=ended_at, state=body["state"])
    return tuple(attempts)


def _next(failures: list[Failed], number: int) -> Failed | None:
    """What the work item says of the next failure of an attempt of this number; a retry by hand counts anew."""
    while failures:
        failure = failures.pop(0)
        if failure.number == number:
            return failure
    return None


def _failed(attempt: Attempt, failure: Failed | None, at: datetime) -> Attempt:
    if failure is None:
        return replace(attempt, finished_at=at, state="FAILED")
    text = f"{failure.reason}: {failure.error}" if failure.reason else failure.error
    return replace(attempt, finished_at=min(failure.ended_at or at, at), state="FAILED", error=text)
