"""When a task's schedule fires: first, next, and in the past."""

from __future__ import annotations

from datetime import datetime, timedelta

from stationmaster_server.tasks.model import Task
from stationmaster_server.tasks.schedules import check, next_times

JUST_BEFORE = timedelta(microseconds=1)


def first_fire(task: Task, now: datetime) -> datetime | None:
    """When the schedule fires first from now on; None: never. Raises InvalidArgument naming the field."""
    if task.schedule is None:
        return None
    check(task.schedule, "task.schedule")
    coming = next_times(task.schedule, now, 1, seed=str(task.uid))
    return coming[0].fires_at if coming else None
