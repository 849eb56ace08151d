"""What would happen: payloads filled in, the next times of a schedule. Nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from stationmaster_server.db.caller import Caller
from stationmaster_server.tasks import store
from stationmaster_server.tasks.backfill import schedule_of
from stationmaster_server.tasks.cron import parse
from stationmaster_server.tasks.model import Schedule, Task
from stationmaster_server.tasks.schedules import check, next_times
from stationmaster_server.tasks.services import TaskServices


class Previews:
    """Of tasks that are stored, and of those that are not yet."""

    def __init__(self, services: TaskServices) -> None:
        self._services = services

    async def render(
        self, caller: Caller, task_id: str | None, task: Task | None, values: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The payload and the variables of an execution. Raises NotFound, InvalidArgument."""
        if task is None:
            task = await self._stored(caller, task_id)
        else:
            payload, secrets = self._services.kinds.part(task.kind, task.payload, "task.payload")
            task = replace(task, payload=payload, secrets=secrets)
            await self._services.filling.check(task)
        return await self._services.filling.fill(task, values)

    async def schedule(
        self, caller: Caller, task_id: str | None, schedule: Schedule | None, after: datetime, count: int
    ) -> tuple[list[datetime], str]:
        """The next times, and the expression in words. Raises NotFound, FailedPrecondition, InvalidArgument."""
        if schedule is None:
            schedule = schedule_of(await self._stored(caller, task_id))
        check(schedule)
        return [due.due_at for due in next_times(schedule, after, count)], in_words(schedule)

    async def _stored(self, caller: Caller, task_id: str | None) -> Task:
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            return await store.get(tx, caller.tenant.organization_id, task_id or "")


def in_words(schedule: Schedule) -> str:
    """When it is due, for people."""
    if schedule.every is not None:
        return f"Every {schedule.every}"
    return f"{parse(schedule.cron).in_words()} ({schedule.time_zone})"
