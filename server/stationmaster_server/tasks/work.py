"""Executions as work: what is submitted to the engine."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.model import Tenant
from stationmaster_server.tasks.model import Concurrency, Options, Priority, Spec, Strategy, Task, work_kind
from stationmaster_server.work.model import NewWork, OnConflict, Timeouts

ATTEMPT_LIMIT = timedelta(hours=1)
"""Of one attempt, where nothing else is said."""


def new_work(
    tenant: Tenant,
    spec: Spec,
    item_id: UUID,
    request_id: str,
    *,
    task: Task | None = None,
    on_conflict: OnConflict = OnConflict.FAIL,
    blocked: bool = False,
) -> NewWork:
    """The item of an execution, whose id it has."""
    options = spec.options
    work = NewWork(
        organization_id=tenant.organization_id,
        user_id=tenant.user_id,
        kind=work_kind(spec.kind),
        subject_id=task.uid if task else item_id,
        payload={"request_id": request_id},
        priority=options.priority or Priority.NORMAL,
        idempotency_key=_scoped(tenant, spec.idempotency_key),
        idempotency_ttl=timedelta(seconds=spec.idempotency_ttl_seconds),
        item_id=item_id,
        on_conflict=on_conflict,
        rate=options.rate,
        retry=options.retry,
        timeouts=with_limit(options),
        run_at=spec.run_at,
        follow_up=True,
        paused=blocked,
    )
    concurrency = options.concurrency
    if concurrency is None:
        return work
    return replace(
        work,
        concurrency_key=key_name(concurrency, tenant.user_id, task),
        max_running=concurrency.max_running,
        strategy=concurrency.strategy,
    )


def key_name(concurrency: Concurrency, user_id: UUID, task: Task | None) -> str:
    """The name of the engine's key: nobody shares one that cancels what runs, so that none ends another's work."""
    if concurrency.key:
        name = f"key:{concurrency.key}"
    elif task is not None:
        name = f"task:{task.uid}"
    else:
        return f"user:{user_id}"
    return f"user:{user_id}:{name}" if concurrency.strategy is Strategy.CANCEL_RUNNING else name


def with_limit(options: Options) -> Timeouts:
    """The timeouts, with a limit for each attempt."""
    timeouts = options.timeouts
    return timeouts if timeouts.start_to_close else replace(timeouts, start_to_close=ATTEMPT_LIMIT)


def _scoped(tenant: Tenant, key: str) -> str | None:
    """One user's key never finds another's execution."""
    return f"{tenant.user_id}:{key}" if key else None
