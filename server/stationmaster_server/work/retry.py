"""What an outcome makes of an item: the one place that decides about retries."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stationmaster_server.work.model import (
    Cancelled,
    Failed,
    Outcome,
    Released,
    RetryPolicy,
    State,
    Succeeded,
    Suspended,
)

_ERROR_BYTES = 8192
_REASON_BYTES = 100


@dataclass(frozen=True, slots=True)
class Decision:
    """The state that follows, and what is written with it. `refund`: the attempt does not count."""

    state: State
    delay_seconds: float = 0.0
    run_at: datetime | None = None
    reason: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    refund: bool = False


def decide(outcome: Outcome, attempt: int, policy: RetryPolicy) -> Decision:
    """What follows from the outcome of an attempt (the first is 1)."""
    match outcome:
        case Succeeded(result):
            return Decision(State.SUCCEEDED, result=result)
        case Released(run_at):
            return Decision(State.QUEUED, run_at=run_at, refund=True)
        case Suspended():
            return Decision(State.SUSPENDED, refund=True)
        case Cancelled(reason):
            return Decision(State.CANCELLED, reason=reason or None)
        case Failed():
            return _after_failure(outcome, attempt, policy)


def _after_failure(failed: Failed, attempt: int, policy: RetryPolicy) -> Decision:
    error = {
        "attempt": attempt,
        "error": _storable(failed.error, _ERROR_BYTES),
        "reason": _storable(failed.reason, _REASON_BYTES),
    }
    if not failed.retryable or failed.reason in policy.non_retryable:
        return Decision(State.DEAD, reason="NOT_RETRYABLE", error=error)
    if attempt >= policy.attempts:
        return Decision(State.DEAD, reason="ATTEMPTS_EXHAUSTED", error=error)
    wait = delay_seconds(attempt, policy) if failed.retry_after is None else failed.retry_after.total_seconds()
    return Decision(State.QUEUED, delay_seconds=wait, error=error)


def delay_seconds(attempt: int, policy: RetryPolicy) -> float:
    """How long to wait after the failure of an attempt."""
    cap = policy.cap.total_seconds()
    try:
        wait = policy.initial.total_seconds() * policy.factor ** (attempt - 1)
    except OverflowError:
        wait = cap
    spread = random.uniform(-policy.jitter, policy.jitter)  # noqa: S311 - spreads load, guards nothing
    return min(cap, wait * (1 + spread))


def _storable(text: str, most_bytes: int) -> str:
    """As jsonb takes it: without NUL and half surrogate pairs, and bounded."""
    sound = text[: 2 * most_bytes].replace("\x00", "").encode("utf-8", "replace")
    return sound[:most_bytes].decode("utf-8", "ignore")
