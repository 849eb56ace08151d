"""Where a task stands in its schedule: when the schedule is new or another one, and when the task is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks.model import Task, TaskState
from stationmaster_server.tasks.schedule_model import Decision, Schedule, SkipReason
from stationmaster_server.tasks.schedule_rules import following, resume
from stationmaster_server.tasks.schedules import check, count_due

JUST_BEFORE = timedelta(microseconds=1)


def scheduled(task: Task, now: datetime) -> Task:
    """The task with its schedule begun at `now`. Raises InvalidArgument naming the field."""
    if task.schedule is None:
        return replace(task, settled_until=None, next_fire_at=None)
    check(task.schedule, "task.schedule")
    coming = following(task.schedule, now, str(task.uid))
    return replace(task, settled_until=now, next_fire_at=coming.fires_at if coming else None)


def rescheduled(task: Task, changed: Task, now: datetime) -> Task:
    """`changed` with its schedule begun at `now`; what the schedule of `task` is still due for is counted as skipped.

    Raises InvalidArgument as `scheduled`.
    """
    dropped = 0 if task.schedule is None or task.settled_until is None else _due(task.schedule, task.settled_until, now)
    reason = SkipReason.PAUSED if task.state is TaskState.PAUSED else SkipReason.RESCHEDULED
    skipped = {**task.skipped, reason: task.skipped.get(reason, 0) + dropped} if dropped else task.skipped
    return scheduled(replace(changed, skipped=skipped), now)


def _due(schedule: Schedule, since: datetime, until: datetime) -> int:
    """How often it was due, fired or not."""
    try:
        return count_due(replace(schedule, jitter=timedelta(0)), since, until)[0]
    except InvalidArgument:
        return 0  # its time zone is known no more: it was never due, and is to be replaced


def resumed(task: Task, now: datetime) -> Task:
    """The task going on at `now`; what was due during the pause is counted as skipped."""
    if task.schedule is None or task.settled_until is None:
        return task
    decision = resume(task.schedule, task.settled_until, now, seed=str(task.uid))
    return replace(
        task,
        settled_until=decision.settled_until,
        next_fire_at=decision.next.fires_at if decision.next else None,
        skipped=added(task.skipped, decision),
    )


def added(skipped: Mapping[str, int], decision: Decision) -> dict[str, int]:
    """The counts of skipped due times by reason, with those of a decision."""
    counts = dict(skipped)
    for reason, number in decision.skipped.items():
        counts[reason] = counts.get(reason, 0) + number
    return counts
