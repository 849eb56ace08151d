"""What becomes of the due times of a schedule: which fire, which are skipped and why."""

from __future__ import annotations

from datetime import datetime, timedelta

from stationmaster_server.tasks.schedule_model import Decision, DueTime, Overlap, Schedule, SkipReason
from stationmaster_server.tasks.schedules import count_due, due_between, next_times

MOST_AT_ONCE = 100
"""How many executions one decision starts at most; the next one goes on from there."""
MOST_OPEN = 1000
"""How many executions of one schedule may wait or run; what is due beyond that is skipped."""
_TICK = timedelta(microseconds=1)


def decide(schedule: Schedule, settled_until: datetime, now: datetime, *, active: int, seed: str) -> Decision:
    """What is to happen at `now` with the due times after `settled_until`.

    `active`: how many executions that the schedule started have not ended, waiting ones included. Due times that should
    have fired longer ago than the catch-up window are skipped as MISSED; the others follow the overlap policy. An
    execution that is waiting under BUFFER_ONE stays; later ones are skipped.
    """
    missed, last_missed = count_due(schedule, settled_until, now - schedule.catch_up - _TICK, seed=seed)
    since = settled_until if last_missed is None else last_missed.due_at
    ready, last = count_due(schedule, since, now, seed=seed)
    fire = _firing(schedule, since, now, last, active, seed)
    skipped = {SkipReason.MISSED: missed}
    if schedule.overlap is Overlap.ALLOW_ALL and fire:
        last = fire[-1]
    else:
        skipped[SkipReason.OVERLAP] = ready - len(fire)
    settled = since if last is None else last.due_at
    return Decision(
        fire, {reason: n for reason, n in skipped.items() if n}, settled, following(schedule, settled, seed)
    )


def resume(schedule: Schedule, settled_until: datetime, now: datetime, *, seed: str) -> Decision:
    """Where a paused schedule goes on at `now`: what came meanwhile is skipped."""
    paused, last = count_due(schedule, settled_until, now, seed=seed)
    settled = settled_until if last is None else last.due_at
    skipped = {SkipReason.PAUSED: paused} if paused else {}
    return Decision((), skipped, settled, following(schedule, settled, seed))


def following(schedule: Schedule, settled_until: datetime, seed: str) -> DueTime | None:
    """The first due time after `settled_until`; None when nothing is due any more."""
    return next(iter(next_times(schedule, settled_until, 1, seed=seed)), None)


def _firing(
    schedule: Schedule, since: datetime, now: datetime, last: DueTime | None, active: int, seed: str
) -> tuple[DueTime, ...]:
    if last is None or active >= MOST_OPEN:
        return ()
    if schedule.overlap is Overlap.CANCEL_OTHER:
        return (last,)
    at_once = min(MOST_AT_ONCE, MOST_OPEN - active)
    room = {Overlap.SKIP: 1 - active, Overlap.BUFFER_ONE: 2 - active, Overlap.ALLOW_ALL: at_once}[schedule.overlap]
    return tuple(due_between(schedule, since, now, room, seed=seed)) if room > 0 else ()
