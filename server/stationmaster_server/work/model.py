"""Items of work: what is submitted, what states they go through, what a handler answers. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID


class State(StrEnum):
    """Where an item stands."""

    WAITING = "WAITING"  # for a slot of its concurrency key
    QUEUED = "QUEUED"  # for a worker, from `run_at` on
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"  # for somebody to resume it; it keeps its slot, and no worker
    SUCCEEDED = "SUCCEEDED"
    CANCELLED = "CANCELLED"
    DEAD = "DEAD"  # failed for good; rests until somebody retries it


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.QUEUED, State.CANCELLED, State.DEAD}),
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.DEAD}),
    State.RUNNING: frozenset({State.QUEUED, State.SUSPENDED, State.SUCCEEDED, State.CANCELLED, State.DEAD}),
    State.SUSPENDED: frozenset({State.QUEUED, State.CANCELLED, State.DEAD}),
    State.SUCCEEDED: frozenset(),
    State.CANCELLED: frozenset(),
    State.DEAD: frozenset({State.WAITING, State.QUEUED}),
}
FINAL = frozenset({State.SUCCEEDED, State.CANCELLED, State.DEAD})
HOLDS_SLOT = frozenset({State.QUEUED, State.RUNNING, State.SUSPENDED})


def may_become(old: State, new: State) -> bool:
    """Whether the transition table has it."""
    return new in TRANSITIONS[old]


class Priority(IntEnum):
    """Lower goes first; what waits long goes up."""

    URGENT = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4
    IDLE = 5


class Strategy(StrEnum):
    """What becomes of an item whose concurrency key has no free slot."""

    GROUP_ROUND_ROBIN = "GROUP_ROUND_ROBIN"  # it waits; keys take turns
    CANCEL_RUNNING = "CANCEL_RUNNING"  # the oldest of the key are cancelled to make room
    CANCEL_NEWEST = "CANCEL_NEWEST"  # it is cancelled itself


class OnConflict(StrEnum):
    """What becomes of an item whose id is taken."""

    FAIL = "FAIL"
    USE_EXISTING = "USE_EXISTING"
    TERMINATE_EXISTING = "TERMINATE_EXISTING"  # it is replaced; a worker that has it loses its lease


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is repeated: after `initial * factor^(n-1)`, at most `cap`, give or take `jitter`."""

    attempts: int = 3
    initial: timedelta = timedelta(seconds=2)
    factor: float = 2.0
    cap: timedelta = timedelta(minutes=5)
    jitter: float = 0.1
    non_retryable: frozenset[str] = frozenset()


DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of an item's life; None: no limit. The database's clock decides."""

    schedule_to_start: timedelta | None = None  # from submission to the first claim
    start_to_close: timedelta | None = None  # one attempt
    schedule_to_close: timedelta | None = None  # all attempts, waits between them included
    heartbeat: timedelta | None = None  # between two calls of `Run.heartbeat`


NO_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Items of one key start at least `per / limit` apart."""

    key: str
    limit: int
    per: timedelta


@dataclass(frozen=True, slots=True)
class NewWork:
    """An item to be submitted."""

    organization_id: UUID
    user_id: UUID  # the owner, among whom workers are shared fairly
    kind: str
    subject_id: UUID
    payload: dict[str, Any] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    concurrency_key: str | None = None
    max_running: int = 1
    strategy: Strategy = Strategy.GROUP_ROUND_ROBIN
    idempotency_key: str | None = None
    idempotency_ttl: timedelta = timedelta(hours=24)
    item_id: UUID | None = None  # None: a new one
    on_conflict: OnConflict = OnConflict.FAIL
    rate: RateLimit | None = None
    retry: RetryPolicy = DEFAULT_RETRY
    timeouts: Timeouts = NO_TIMEOUTS
    run_at: datetime | None = None  # not before; None: now
    follow_up: bool = False  # its end is dealt with by `follow_up_store`
    paused: bool = False  # not claimed until `WorkQueue.unpause`


@dataclass(frozen=True, slots=True)
class WorkItem:
    """An item as it is stored. `errors` has an object for each failed attempt: attempt, error, reason, at, worker.

    `started_at`: when the first attempt began, of those since it was last queued by hand.
    Of more than 100 it has the first 10 and the newest 90.
    """

    organization_id: UUID
    user_id: UUID
    item_id: UUID
    kind: str
    subject_id: UUID
    state: State
    reason: str | None
    priority: int
    paused: bool
    payload: dict[str, Any]
    concurrency_key: str | None
    rate_key: str | None
    retry: RetryPolicy
    attempt: int
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested: bool
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    errors: list[dict[str, Any]]
    attempt_timeout: timedelta | None
    lease_token: UUID | None


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Done."""

    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed; it is retried by the policy unless `retryable` is False or the policy excludes `reason`."""

    error: str
    retryable: bool = True
    reason: str = ""
    retry_after: timedelta | None = None  # instead of the policy's delay


@dataclass(frozen=True, slots=True)
class Released:
    """Handed back, to be claimed again from `run_at` (None: now) on; it counts as no attempt."""

    run_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Suspended:
    """To be claimed again after `WorkQueue.resume`; it keeps its concurrency slot and counts as no attempt."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Stopped, because that was asked for."""

    reason: str = ""


Outcome = Succeeded | Failed | Released | Suspended | Cancelled


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many items of one kind are in a state; and since when the oldest of them has been due."""

    kind: str
    state: State
    count: int
    oldest: datetime
