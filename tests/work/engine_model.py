"""What the work engine does, in memory: no tables, no locks, no clock but `now`.

Times are hours. Whoever moves the clock does so by whole hours, and every limit and delay is a whole number and a half,
so that nothing is due at the moment it is looked at. A step of the test takes a millionth of an hour, which keeps the
order of what happens in the same hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from stationmaster_server.work.model import (
    FINAL,
    HOLDS_SLOT,
    Cancelled,
    Failed,
    NewWork,
    OnConflict,
    Outcome,
    Released,
    State,
    Strategy,
    Succeeded,
    Suspended,
    may_become,
)

LEASE = timedelta(hours=3, minutes=30)
AGEING = timedelta(hours=1, minutes=30)
STEP = 1e-6


class Refused(Exception):
    """The engine refuses it; the message is the name of its error."""


def hours(span: timedelta | None) -> float | None:
    """A limit, as a number."""
    return None if span is None else span.total_seconds() / 3600


def _in(now: float, span: timedelta | None) -> float | None:
    return None if span is None else now + span.total_seconds() / 3600


@dataclass
class Twin:
    """An item."""

    id: UUID
    work: NewWork
    state: State
    created_at: float
    run_at: float
    start_deadline: float | None
    close_deadline: float | None
    idempotency_key: str | None
    idempotency_expires_at: float
    reason: str | None = None
    paused: bool = False
    deferred: bool = False
    attempt: int = 0
    token: UUID | None = None
    stale: list[UUID] = field(default_factory=list)
    lease_expires_at: float | None = None
    attempt_deadline: float | None = None
    heartbeat_deadline: float | None = None
    cancel: bool = False
    resume: bool = False
    finished_at: float = 0.0
    errors: list[tuple[int, str]] = field(default_factory=list)

    @property
    def lane(self) -> tuple[UUID, int]:
        """Whose at which priority."""
        return self.work.user_id, self.work.priority.value

    def become(self, state: State) -> None:
        """Go into a state, which must be one that the table of transitions has."""
        assert may_become(self.state, state), (self.state, state)
        self.state = state


class Model:
    """All items of an organization."""

    def __init__(self) -> None:
        self.now = 0.0
        self.twins: dict[UUID, Twin] = {}
        self.served: dict[tuple[UUID, int], float] = {}
        self.used: dict[tuple[UUID, int], float] = {}

    def of(self, *states: State) -> list[Twin]:
        """The items in one of the states, the oldest first."""
        return [twin for twin in self.twins.values() if twin.state in states]

    # Submitting.

    def submit(self, work: NewWork, item_id: UUID, lease: UUID | None = None, spread: int = 0) -> Twin:
        """Put an item in, or find the one that stands for it; `spread`: those submitted together are due apart."""
        existing = self._existing(work)
        if existing is not None:
            return existing
        taken = self.twins.get(item_id)
        if taken is not None and work.on_conflict is OnConflict.FAIL:
            raise Refused("AlreadyExists")
        stale: list[UUID] = []
        if taken is not None:
            del self.twins[item_id]
            stale = [*taken.stale, *([taken.token] if taken.token else [])]
            if taken.state in HOLDS_SLOT:
                self.admit([taken.work.concurrency_key])
        twin = self._insert(work, item_id, lease, spread * STEP / 10)
        twin.stale = stale + twin.stale
        return twin

    def _existing(self, work: NewWork) -> Twin | None:
        for twin in self.twins.values():
            if work.idempotency_key is None or twin.idempotency_key != work.idempotency_key:
                continue
            if twin.idempotency_expires_at > self.now:
                return twin
            twin.idempotency_key = None
        if work.item_id is not None and work.on_conflict is OnConflict.USE_EXISTING:
            return self.twins.get(work.item_id)
        return None

    def _insert(self, work: NewWork, item_id: UUID, lease: UUID | None, spread: float) -> Twin:
        deferred = work.concurrency_key is not None and work.run_at is not None
        state = State.WAITING if deferred else self._admission(work)
        run_at = self.now if work.run_at is None else self.now + 1.5 + spread
        twin = Twin(
            item_id,
            work,
            state,
            self.now,
            run_at,
            _in(self.now, work.timeouts.schedule_to_start),
            _in(self.now, work.timeouts.schedule_to_close),
            work.idempotency_key,
            _in(self.now, work.idempotency_ttl) or 0.0,
            reason="CONCURRENCY_LIMIT" if state is State.CANCELLED else None,
            paused=work.paused,
            deferred=deferred,
            finished_at=self.now,
        )
        self.twins[item_id] = twin
        self._use(twin)
        if lease is not None and state is State.QUEUED and not work.paused:
            self._start(twin, lease)
        return twin

    def _use(self, twin: Twin) -> None:
        self.served.setdefault(twin.lane, -math.inf)
        self.used[twin.lane] = self.now

    def _admission(self, work: NewWork) -> State:
        key = work.concurrency_key
        if key is None:
            return State.QUEUED
        if work.strategy is Strategy.CANCEL_RUNNING:
            self._make_room(key, work.max_running)
        if work.paused:  # what is held back takes no slot
            return State.WAITING
        if self._taken(key) < work.max_running:
            return State.QUEUED
        return State.CANCELLED if work.strategy is Strategy.CANCEL_NEWEST else State.WAITING

    def _make_room(self, key: str, max_running: int) -> None:
        """The oldest make room: the newest that are left, and the new one, are as many as may run."""
        members = [
            twin
            for twin in self.twins.values()
            if twin.work.concurrency_key == key and twin.state not in FINAL and not twin.cancel and not twin.deferred
        ]
        members.sort(key=lambda twin: (twin.created_at, twin.id), reverse=True)
        for twin in members[max_running - 1 :]:
            self._cancel(twin, "CANCELLED_BY_NEWER")
        self.admit([key])

    # Concurrency keys.

    def _taken(self, key: str) -> int:
        return sum(twin.work.concurrency_key == key and twin.state in HOLDS_SLOT for twin in self.twins.values())

    def admit(self, keys: Iterable[str | None]) -> None:
        """Free slots go to whoever waits for them, by priority and age."""
        for key in {key for key in keys if key is not None}:
            for twin in self._admissible(key):
                twin.become(State.QUEUED)
                twin.run_at = max(twin.run_at, self.now)

    def _admissible(self, key: str) -> list[Twin]:
        """Those that a slot is free for, even if all that wait before them had one."""
        waiting = [
            twin
            for twin in self.of(State.WAITING)
            if twin.work.concurrency_key == key and not twin.paused and not twin.deferred
        ]
        waiting.sort(key=lambda twin: (twin.work.priority, twin.run_at, twin.id))
        return [twin for before, twin in enumerate(waiting, self._taken(key)) if before < twin.work.max_running]

    def let_in(self) -> None:
        """Whose time has come is dealt with as if it were submitted now; first come those that only wait."""
        due = [
            twin
            for twin in self.of(State.WAITING)
            if twin.deferred and not twin.paused and twin.run_at <= self.now and twin.work.concurrency_key
        ]
        due.sort(key=lambda twin: (twin.work.strategy is not Strategy.GROUP_ROUND_ROBIN, twin.run_at, twin.id))
        for twin in due:
            twin.deferred = twin.work.strategy is not Strategy.GROUP_ROUND_ROBIN
            twin.created_at = twin.created_at if twin.deferred else self.now
        self.admit([twin.work.concurrency_key for twin in due])
        for twin in due:
            key = twin.work.concurrency_key or ""
            if twin.deferred and twin.work.strategy is Strategy.CANCEL_RUNNING:
                self._make_room(key, twin.work.max_running)
            elif twin.deferred and self._taken(key) >= twin.work.max_running:
                self._cancel(twin, "CONCURRENCY_LIMIT")
                continue
            if twin.deferred:
                twin.deferred, twin.created_at = False, self.now
            self.admit([key])

    def slots_unused(self) -> bool:
        """Whether somebody waits for a slot that is free."""
        return any(self._admissible(twin.work.concurrency_key or "") for twin in self.of(State.WAITING))

    # Claiming and ending.

    def claimable(self, kinds: Sequence[str], limit: int) -> list[Twin]:
        """Who is next, in order."""
        ready = [
            twin
            for twin in self.of(State.QUEUED)
            if not twin.paused and twin.run_at <= self.now and twin.work.kind in kinds
        ]
        lanes: dict[tuple[UUID, int], list[Twin]] = {}
        for twin in sorted(ready, key=lambda twin: twin.run_at):
            lanes.setdefault(twin.lane, []).append(twin)
        each = math.ceil(2 * limit / math.sqrt(len(lanes) or 1))
        owners: dict[UUID, list[tuple[float, float, Twin]]] = {}
        for (owner, priority), twins in lanes.items():
            for place, twin in enumerate(twins[:each]):
                since = max(twin.run_at, self.served[twin.lane])
                level = priority if place else math.ceil(priority - (self.now - since) / (hours(AGEING) or 1.0))
                owners.setdefault(owner, []).append((level, twin.run_at, twin))
        order = []
        for owner, candidates in owners.items():
            served = max(self.served[lane] for lane in lanes if lane[0] == owner)
            candidates.sort(key=lambda candidate: candidate[:2])
            order += [(level, turn, served, at, twin) for turn, (level, at, twin) in enumerate(candidates)]
        order.sort(key=lambda entry: entry[:4])
        return [entry[-1] for entry in order[:limit]]

    def claim(self, twin: Twin, token: UUID) -> None:
        """A worker takes it."""
        self._start(twin, token)
        self.served[twin.lane] = self.now

    def _start(self, twin: Twin, token: UUID) -> None:
        twin.become(State.RUNNING)
        twin.stale += [twin.token] if twin.token else []
        twin.token = token
        twin.attempt += 1
        twin.resume = False
        twin.start_deadline = None
        twin.lease_expires_at = _in(self.now, LEASE)
        twin.attempt_deadline = _in(self.now, twin.work.timeouts.start_to_close)
        twin.heartbeat_deadline = _in(self.now, twin.work.timeouts.heartbeat)

    def beat(self, twin: Twin, alive: bool) -> None:
        """Its worker lives and, if `alive`, its handler."""
        twin.lease_expires_at = _in(self.now, LEASE)
        if alive:
            twin.heartbeat_deadline = _in(self.now, twin.work.timeouts.heartbeat)

    def end(self, twin: Twin, outcome: Outcome) -> None:
        """An attempt ends."""
        self._end(twin, outcome)
        if twin.state in FINAL:
            self.admit([twin.work.concurrency_key])

    def _end(self, twin: Twin, outcome: Outcome) -> None:
        state, reason, run_at = State.QUEUED, None, self.now
        match outcome:
            case Succeeded():
                state = State.SUCCEEDED
            case Cancelled():
                state, reason = State.CANCELLED, outcome.reason or None
            case Released():
                run_at = self.now if outcome.run_at is None else self.now + 1.5
            case Suspended():
                state = State.QUEUED if twin.resume else State.SUSPENDED
            case Failed():
                state, reason, wait = self._after_failure(twin, outcome)
                run_at = self.now + wait
        if isinstance(outcome, Released | Suspended):
            twin.attempt -= 1
        if twin.cancel and state in (State.QUEUED, State.SUSPENDED):
            state = State.CANCELLED
        if state is State.QUEUED:
            twin.run_at = run_at
        if state is State.CANCELLED:
            reason = reason or twin.reason
        twin.become(state)
        twin.reason, twin.finished_at = reason, self.now

    def _after_failure(self, twin: Twin, failed: Failed) -> tuple[State, str | None, float]:
        policy = twin.work.retry
        twin.errors.append((twin.attempt, failed.reason))
        if not failed.retryable or failed.reason in policy.non_retryable:
            return State.DEAD, "NOT_RETRYABLE", 0.0
        if twin.attempt >= policy.attempts:
            return State.DEAD, "ATTEMPTS_EXHAUSTED", 0.0
        wait = min(policy.initial * policy.factor ** (twin.attempt - 1), policy.cap)
        return State.QUEUED, None, hours(wait if failed.retry_after is None else failed.retry_after) or 0.0

    # What nobody ends.

    def reap(self) -> int:
        """Take back what died; returns how many."""
        expired = [(twin, cause) for twin in self.twins.values() if (cause := self._cause(twin)) is not None]
        for twin, cause in expired:
            if cause.startswith("SCHEDULE_TO"):
                twin.become(State.DEAD)
                twin.reason, twin.finished_at = cause, self.now
            else:
                at_once = timedelta(0) if cause == "LEASE_EXPIRED" else None
                self._end(twin, Failed("", reason=cause, retry_after=at_once))
        self.admit(twin.work.concurrency_key for twin, _ in expired if twin.state in FINAL)
        return len(expired)

    def _cause(self, twin: Twin) -> str | None:
        if twin.state in FINAL:
            return None
        running = twin.state is State.RUNNING
        causes = {
            "SCHEDULE_TO_CLOSE": twin.close_deadline,
            "SCHEDULE_TO_START": None if running else twin.start_deadline,
            "START_TO_CLOSE": twin.attempt_deadline if running else None,
            "HEARTBEAT": twin.heartbeat_deadline if running else None,
            "LEASE_EXPIRED": twin.lease_expires_at if running else None,
        }
        return next((cause for cause, limit in causes.items() if limit is not None and limit < self.now), None)

    def forget(self, older_than: timedelta) -> None:
        """Items that ended well long ago go, unless a repeated submission may be answered with them."""
        for twin in self.of(State.SUCCEEDED, State.CANCELLED):
            needed = twin.idempotency_key is not None and twin.idempotency_expires_at > self.now
            if not needed and twin.finished_at + (hours(older_than) or 0.0) < self.now:
                del self.twins[twin.id]

    def keep_house(self) -> None:
        """Lanes that nobody uses go, and with them the memory of when they were served."""
        needed = {twin.lane for twin in self.live()}
        for lane, used_at in list(self.used.items()):
            if lane not in needed and used_at < self.now - 0.5:
                del self.served[lane], self.used[lane]

    def live(self) -> list[Twin]:
        """What has not ended."""
        return [twin for twin in self.twins.values() if twin.state not in FINAL]

    # What people do.

    def cancel(self, twin: Twin) -> None:
        """Cancel it, or ask its worker to."""
        if twin.state in FINAL:
            return
        self._cancel(twin, "CANCELLED")
        if twin.state is State.CANCELLED:
            self.admit([twin.work.concurrency_key])

    def _cancel(self, twin: Twin, reason: str) -> None:
        twin.cancel, twin.reason = True, reason
        if twin.state is not State.RUNNING:
            twin.become(State.CANCELLED)
            twin.finished_at = self.now

    def pause(self, twin: Twin, paused: bool) -> None:
        """Hold it back, or let it go on."""
        if twin.state in FINAL:
            raise Refused("FailedPrecondition")
        twin.paused = paused
        if not paused and twin.state is State.WAITING:
            self.admit([twin.work.concurrency_key])

    def resume(self, twin: Twin) -> None:
        """Wake it, or have it not sleep."""
        if twin.state in FINAL:
            raise Refused("FailedPrecondition")
        if twin.state is State.SUSPENDED:
            twin.become(State.QUEUED)
            twin.run_at = self.now
        elif twin.state is State.RUNNING:
            twin.resume = True

    def retry(self, *twins: Twin) -> None:
        """Queue dead items again, in their order."""
        if any(twin.state is not State.DEAD for twin in twins):
            raise Refused("FailedPrecondition")
        for place, twin in enumerate(twins):
            twin.become(State.QUEUED if twin.work.concurrency_key is None else State.WAITING)
            twin.paused = twin.deferred = False
            twin.reason, twin.attempt, twin.cancel, twin.resume = None, 0, False, False
            twin.run_at = self.now + place * STEP / 1000
            twin.start_deadline = None
            twin.close_deadline = _in(self.now, twin.work.timeouts.schedule_to_close)
            self._use(twin)
        self.admit(twin.work.concurrency_key for twin in twins)
