"""Fires schedules: every due time once across all servers, or counted as skipped with its reason."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Aborted, Unavailable
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.system import system_caller
from stationmaster_server.tasks import execution_store, schedule_store
from stationmaster_server.tasks.model import Task, Trigger, task_name
from stationmaster_server.tasks.overlap import of_schedule
from stationmaster_server.tasks.schedule_model import Decision, Schedule, SkipReason
from stationmaster_server.tasks.schedule_rules import decide
from stationmaster_server.tasks.schedule_store import Claimed, clock
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.starting import start
from stationmaster_server.tasks.timing import added

logger = logging.getLogger(__name__)

_AGAIN_SOON = timedelta(seconds=1)
_AGAIN_LATER = timedelta(seconds=30)
_PATIENCE = timedelta(milliseconds=200)
"""How long one task's locks are waited for while others are due."""


class Firing:
    """Looks on every server; a task that another server deals with is left to it.

    What is due, the executions begun for it and how far the schedule is settled change in one transaction: a server
    that dies has either done all of it or nothing.
    """

    def __init__(self, services: TaskServices, *, clock: Callable[[], datetime] | None = None) -> None:
        """`clock` in place of the database's, which all servers share."""
        self._services = services
        self._clock = clock
        self._outcomes = Counter(dict.fromkeys(("FIRED", "PUT_OFF", SkipReason.MISSED, SkipReason.OVERLAP), 0))
        self._lag = timedelta(0)

    @property
    def outcomes(self) -> Mapping[str, int]:
        """How many due times this server fired and skipped, by reason, and how often it had to put a task off."""
        return self._outcomes

    @property
    def lag(self) -> timedelta:
        """How late the last task was that this server looked at."""
        return self._lag

    async def fire_due(self) -> int:
        """Settle every schedule that is due now; returns how many executions were begun."""
        total = 0
        while (begun := await self._fire_next()) is not None:
            total += begun
        return total

    async def _fire_next(self) -> int | None:
        """One task, in one transaction; None when none is due. A task that cannot be dealt with holds up no other."""
        claimed: Claimed | None = None
        try:
            async with self._services.database.system() as tx:
                await tx.wait_at_most(_PATIENCE)
                claimed = await schedule_store.claim(tx, self._clock() if self._clock else await clock(tx))
                return None if claimed is None else await self._settle(tx, claimed)
        except Unavailable:
            raise  # it is the database's fault and not the task's
        except Exception as error:
            if claimed is None:
                raise
            soon = isinstance(error, Aborted)
            if not soon:
                logger.exception("%s cannot be fired; it is tried again", task_name(claimed.task.task_id))
            async with self._services.database.system() as tx:
                await schedule_store.put_off(tx, claimed, _AGAIN_SOON if soon else _AGAIN_LATER)
            self._outcomes["PUT_OFF"] += 1
            return 0

    async def _settle(self, tx: Transaction, claimed: Claimed) -> int:
        organization_id, task, now = claimed.organization_id, claimed.task, claimed.at
        schedule, settled_until = task.schedule, task.settled_until
        if schedule is None or settled_until is None:
            raise ValueError(f"{task_name(task.task_id)} is due and has no schedule")
        if schedule.pause_on_failure and await schedule_store.has_new_failure(tx, organization_id, task.uid):
            await schedule_store.put_off(tx, claimed, _AGAIN_SOON)
            return 0
        active = await execution_store.open_of(tx, organization_id, task.uid, scheduled=True)
        decision = decide(schedule, settled_until, now, active=len(active), seed=str(task.uid))
        times = await self._start(tx, organization_id, task, schedule, decision)
        await schedule_store.settle(
            tx,
            organization_id,
            task.task_id,
            decision.settled_until,
            decision.next.fires_at if decision.next else None,
            added(task.skipped, decision),
            fired=len(times),
            last_fire_at=times[-1] if times else None,
        )
        await self._tell_of_skipped(tx, organization_id, task, decision)
        tx.after_commit(lambda: self._count(claimed, len(times), decision))
        return len(times)

    def _count(self, claimed: Claimed, fired: int, decision: Decision) -> None:
        self._outcomes.update({"FIRED": fired, **added({}, decision)})
        if claimed.task.next_fire_at is not None:
            self._lag = claimed.at - claimed.task.next_fire_at

    async def _start(
        self, tx: Transaction, organization_id: UUID, task: Task, schedule: Schedule, decision: Decision
    ) -> list[datetime]:
        times = [due.due_at for due in decision.fire]
        # BackfillTask may have been there before.
        known = await execution_store.times_of(tx, organization_id, task.uid, times) if times else set()
        times = [time for time in times if time not in known]
        if times:
            await start(
                tx,
                self._services,
                system_caller(organization_id, task.user_id, request_id=f"schedule-{task.uid}"),
                task,
                Trigger.SCHEDULE,
                times=times,
                concurrency=of_schedule(task, schedule),
            )
        return times

    async def _tell_of_skipped(self, tx: Transaction, organization_id: UUID, task: Task, decision: Decision) -> None:
        if decision.skipped:
            details: dict[str, Any] = {"until": decision.settled_until.isoformat(), **added({}, decision)}
            entry = AuditEntry("task.skip", task_name(task.task_id), category=Category.SYSTEM, details=details)
            caller = system_caller(organization_id, task.user_id, request_id=f"schedule-{task.uid}")
            await self._services.audit.write(tx, caller, entry)
