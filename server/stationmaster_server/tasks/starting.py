"""Executions that tasks begin by themselves: by schedule, when what they depend on has succeeded, to fill gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.tasks import dependency_store, events, execution_store, keys
from stationmaster_server.tasks.execution_store import NewRow
from stationmaster_server.tasks.graph import Verdict, verdict, why_skipped, why_waiting
from stationmaster_server.tasks.model import (
    DEPENDENCY_FAILED,
    Concurrency,
    DependencyMode,
    ExecutionState,
    Options,
    Spec,
    Task,
    Trigger,
    execution_name,
    task_name,
)
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.work import key_name, new_work
from stationmaster_server.templating.variables import check_values
from stationmaster_server.work.model import NewWork

FAULT = "fault"
"""In the payload of a work item: why the execution is to fail when it begins."""


async def start(
    tx: Transaction,
    services: TaskServices,
    caller: Caller,
    task: Task,
    trigger: Trigger,
    *,
    times: Sequence[datetime | None] = (None,),
    variables: Mapping[str, Any] | None = None,
    concurrency: Concurrency | None = None,
) -> list[UUID]:
    """Submit an execution of a task for each due time, whose templates are filled in when it begins.

    With the variables of now: with wrong ones it fails when it begins, but a backfill's caller is told at once.
    `caller` acts for the task's owner. `concurrency` replaces the task's. An execution whose dependencies are not
    fulfilled waits for them; one that they forbid is cancelled at once.
    """
    organization_id = caller.tenant.organization_id
    edges = await dependency_store.upstream(tx, organization_id, [task.task_id])
    blocked = trigger is not Trigger.DEPENDENCY and verdict(edges) is not Verdict.RUN
    options = replace(task.options, concurrency=concurrency) if concurrency else task.options
    values, fault = _values(task, variables or {}, trigger)
    blocked_by = why_waiting(edges) if blocked else ""
    rows = [_row(task, time, values, blocked_by) for time in times]
    works = [_work(caller, task, options, row, trigger, fault) for row in rows]
    waiting = await execution_store.blocked_of(tx, organization_id, task.task_id)
    await services.queue.lock_keys(tx, organization_id, waiting, {work.concurrency_key for work in works})
    await services.queue.submit_many(tx, works, bounded=trigger is Trigger.BACKFILL)
    await execution_store.insert(tx, organization_id, task.user_id, trigger, rows)
    if blocked:
        await look_again(tx, services, caller, task.task_id)
    ids = [row.id for row in rows]
    details = {"trigger": trigger.value, "executions": [execution_name(item_id) for item_id in ids[:100]]}
    await services.audit.write(tx, caller, AuditEntry("task.start", task_name(task.task_id), details=details))
    return ids


def _work(caller: Caller, task: Task, options: Options, row: NewRow, trigger: Trigger, fault: str) -> NewWork:
    """What cannot be filled in fails when it begins, and takes no key's place until then."""
    if not fault:
        try:
            options = keys.fill(options, keys.context(task.task_id, row.variables, row.scheduled_for))
        except InvalidArgument as error:
            if trigger is Trigger.BACKFILL:
                raise
            fault = error.message
    if fault:
        options = replace(options, concurrency=None, rate=None)
    tenant = Tenant(caller.tenant.organization_id, task.user_id)
    work = new_work(tenant, Spec(task.kind, {}, options), row.id, caller.request_id, task=task, blocked=row.blocked)
    return replace(work, payload={**work.payload, FAULT: fault}) if fault else work


def started_in_vain(task: Task) -> str:
    """Why what it depends on can never start a task; empty when it can, or only holds it back."""
    if task.dependency_mode is DependencyMode.GATE or not task.needs:
        return ""
    names = ", ".join(task.needs)
    return (
        f"what it depends on starts {task_name(task.task_id)} and can give no value to {names}:"
        " give them defaults, or let it only be held back (dependency_mode GATE)"
    )


def key_by_itself(task: Task) -> str | None:
    """The concurrency key of what a task begins without being given anything."""
    variables, fault = _values(task, {}, Trigger.DEPENDENCY)
    if fault:
        return None
    try:
        options = keys.fill(task.options, keys.context(task.task_id, variables, None))
    except InvalidArgument:
        return None
    return key_name(options.concurrency, task.user_id, task) if options.concurrency else None


def _values(task: Task, given: Mapping[str, Any], trigger: Trigger) -> tuple[dict[str, Any], str]:
    """All variables of executions, and what is wrong with them when there is nobody to tell it to."""
    try:
        return check_values(task.variables, given), ""
    except InvalidArgument as error:
        if trigger is Trigger.BACKFILL:
            raise
        return dict(given), error.message


def _row(task: Task, time: datetime | None, variables: Mapping[str, Any], blocked_by: str) -> NewRow:
    return NewRow(
        id=new_id(),
        payload=dict(task.payload),
        variables=dict(variables),
        labels=dict(task.labels),
        report_formats=task.options.report_formats,
        kind=task.kind,
        task_id=task.task_id,
        task_uid=task.uid,
        scheduled_for=time,
        template=True,
        secrets=task.secrets,
        blocked_by=blocked_by,
    )


async def look_again(tx: Transaction, services: TaskServices, caller: Caller, task_id: str) -> None:
    """Let go, or cancel, the executions of a task that wait for its dependencies, as those stand now."""
    organization_id = caller.tenant.organization_id
    waiting = await execution_store.blocked_of(tx, organization_id, task_id)
    if not waiting:
        return
    edges = await dependency_store.upstream(tx, organization_id, [task_id])
    what = verdict(edges)
    if what is Verdict.WAIT:
        return
    await services.queue.lock_keys(tx, organization_id, waiting)
    if what is Verdict.SKIP:
        await services.queue.cancel_many(tx, organization_id, waiting, DEPENDENCY_FAILED, why_skipped(edges))
        await execution_store.unblock(tx, organization_id, waiting)
        return
    for execution_id in waiting:
        await release(tx, services, organization_id, execution_id)


async def release(tx: Transaction, services: TaskServices, organization_id: UUID, execution_id: UUID) -> None:
    """Let an execution go that waited for dependencies."""
    await services.queue.unpause(tx, organization_id, execution_id)
    await execution_store.unblock(tx, organization_id, [execution_id])
    queued = events.state_changed(ExecutionState.QUEUED, 0)
    await services.log.append(tx, organization_id, execution_id, [queued])
