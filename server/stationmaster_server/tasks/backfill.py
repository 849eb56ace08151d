"""Executions for the times that a schedule was due at in a range of the past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.requests import look, recall, remember
from stationmaster_server.errors import FailedPrecondition, InvalidArgument, PreconditionViolation, Reason
from stationmaster_server.tasks import execution_store, store
from stationmaster_server.tasks.model import Schedule, Task, Trigger, task_name
from stationmaster_server.tasks.overlap import of_backfill
from stationmaster_server.tasks.owners import require_own_secrets
from stationmaster_server.tasks.schedules import due_between
from stationmaster_server.tasks.service import require_owner
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.starting import start
from stationmaster_server.tasks.timing import JUST_BEFORE

MOST_TIMES = 1000


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What was submitted, for which times; `skipped` times had an execution already."""

    ids: list[UUID]
    times: list[datetime]
    skipped: int


async def backfill(
    services: TaskServices,
    caller: Caller,
    task_id: str,
    since: datetime,
    until: datetime,
    *,
    variables: Mapping[str, Any],
    max_running: int = 1,
    validate_only: bool = False,
) -> Backfilled:
    """Submit an execution for each due time from `since` to before `until` that has none.

    Raises NotFound, PermissionDenied, FailedPrecondition(NO_SCHEDULE), InvalidArgument, ResourceExhausted(QUEUE_FULL).
    """
    tenant = caller.tenant
    key = None if validate_only else caller.request_key
    async with services.database.tenant(tenant, read=True) as tx:
        again = await look(tx, tenant, key, Backfilled)
        if again is not None:
            return again
        task = await store.get(tx, tenant.organization_id, task_id)
    require_owner(caller, task)
    if variables:
        require_own_secrets(services.kinds, caller, task)
    times = _due(schedule_of(task), since, until)
    of_backfill(task, max_running or 1)
    await services.filling.fill(task, variables)  # what is wrong is told now, not a thousand times later
    async with services.database.tenant(tenant) as tx:
        again = await recall(tx, tenant, key, Backfilled)
        if again is not None:
            return again
        task = await store.lock(tx, tenant.organization_id, task_id)
        known = await execution_store.times_of(tx, tenant.organization_id, task.uid, times)
        wanted = [time for time in times if time not in known]
        if validate_only or not wanted:
            tx.audited = True  # nothing is changed
            done = Backfilled([], wanted, len(known))
        else:
            few = of_backfill(task, max_running or 1)
            ids = await start(
                tx, services, caller, task, Trigger.BACKFILL, times=wanted, variables=variables, concurrency=few
            )
            done = Backfilled(ids, wanted, len(known))
        await remember(tx, tenant, key, done)
        return done


def schedule_of(task: Task) -> Schedule:
    """The schedule of a task. Raises FailedPrecondition(NO_SCHEDULE)."""
    if task.schedule is None:
        name = task_name(task.task_id)
        raise FailedPrecondition(
            Reason.NO_SCHEDULE,
            f"{name} has no schedule",
            PreconditionViolation(
                "TASK_SCHEDULE",
                name,
                "give it one with UpdateTask (`stationmaster tasks update` with --cron or --every)",
            ),
        )
    return task.schedule


def _due(schedule: Schedule, since: datetime, until: datetime) -> Sequence[datetime]:
    if until <= since:
        raise InvalidArgument.field("end_time", "must be after start_time")
    schedule = replace(schedule, jitter=timedelta(0))
    due = due_between(schedule, since - JUST_BEFORE, until - JUST_BEFORE, MOST_TIMES + 1)
    if len(due) > MOST_TIMES:
        raise InvalidArgument.field("end_time", f"more than {MOST_TIMES} times are due in this range: make it shorter")
    return [one.due_at for one in due]
