"""Where a task stands in its schedule: when the schedule is new, and when the task is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from stationmaster_server.tasks.model import Task
from stationmaster_server.tasks.schedule_model import Decision
from stationmaster_server.tasks.schedule_rules import following, resume
from stationmaster_server.tasks.schedules import check

JUST_BEFORE = timedelta(microseconds=1)


def scheduled(task: Task, now: datetime) -> Task:
    """The task with its schedule begun at `now`. Raises InvalidArgument naming the field."""
    if task.schedule is None:
        return replace(task, settled_until=None, next_fire_at=None)
    check(task.schedule, "task.schedule")
    coming = following(task.schedule, now, str(task.uid))
    return replace(task, settled_until=now, next_fire_at=coming.fires_at if coming else None)


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
