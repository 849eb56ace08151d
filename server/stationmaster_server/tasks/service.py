"""Tasks: how they are defined, changed, paused, searched and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import first_answer, look, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PreconditionViolation,
    Reason,
    require_etag,
)
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.identity.roles import administers, require_administrator
from stationmaster_server.tasks import dependency_store, embeddings, execution_store, level_store, schedule_store, store
from stationmaster_server.tasks.model import Task, TaskState, illegal_state, task_name
from stationmaster_server.tasks.overlap import check_overlap
from stationmaster_server.tasks.owners import require_own_secrets
from stationmaster_server.tasks.schedules import check as check_schedule
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.starting import started_in_vain
from stationmaster_server.tasks.sync.changed import tell
from stationmaster_server.tasks.timing import rescheduled, resumed, scheduled

UPDATABLE = frozenset(
    {"display_name", "description", "payload", "variables", "schedule", "options", "dependency_mode", "labels"}
)


_SAYS_WHAT_IT_DOES = frozenset({"payload", "variables"})


@dataclass(frozen=True, slots=True)
class _Deleted:
    """What is remembered of a deletion."""

    task_id: str


class Tasks:
    """The rules of tasks. Every change is one transaction with its audit row."""

    def __init__(self, services: TaskServices) -> None:
        self._services = services

    async def create(self, caller: Caller, new: Task, *, validate_only: bool = False) -> Task:
        """Create a task of the caller. Raises AlreadyExists, InvalidArgument."""
        payload, secrets = self._services.kinds.part(new.kind, new.payload, "task.payload")
        new = replace(new, payload=payload, secrets=secrets)
        tenant = caller.tenant
        if not validate_only and (again := await first_answer(self._services.database, caller, Task)) is not None:
            return again
        await self._check(caller, new)
        await self._services.kinds.look_ahead(caller, new.kind, new.payload, "task.payload")
        task = replace(new, uid=new_id(), user_id=tenant.user_id, etag=new_id().hex)
        task = scheduled(task, self._services.now())
        if validate_only:
            await self._require_free(caller, task.task_id)
            return task
        async with self._services.database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Task)
            if again is not None:
                return again
            task = await store.insert(tx, tenant.organization_id, task)
            await embeddings.order(tx, self._services.queue, tenant, task, self._services.embedder.name)
            await self._audit(tx, caller, "task.create", task, kind=task.kind)
            await remember(tx, tenant, caller.request_key, replace(task, secrets={}))
            return task

    async def get(self, caller: Caller, task_id: str) -> Task:
        """One task. Raises NotFound."""
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            return await store.get(tx, caller.tenant.organization_id, task_id)

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[Task]:
        """A page of tasks, the newest first by default. Raises InvalidArgument."""
        clause = store.LISTING.sql(filter_text, order_by, page, start=2)
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            return await store.list_tasks(tx, caller.tenant.organization_id, clause)

    async def update(
        self, caller: Caller, task_id: str, changes: Mapping[str, Any], etag: str = "", *, validate_only: bool = False
    ) -> Task:
        """Change fields, by their names in `Task`. Executions that exist keep what they were submitted with.

        Raises NotFound, Aborted(ETAG_MISMATCH), PermissionDenied, InvalidArgument.
        """
        tenant = caller.tenant
        async with self._services.database.tenant(tenant, read=True) as tx:
            again = await look(tx, tenant, None if validate_only else caller.request_key, Task)
            if again is not None:
                return again
            before = await store.get(tx, tenant.organization_id, task_id)
        require_owner(caller, before)
        changed = replace(before, **changes, etag=new_id().hex)
        if "payload" in changes:
            parted = self._services.kinds.part(before.kind, changed.payload, "task.payload", before.secrets)
            changed = replace(changed, payload=parted[0], secrets=parted[1])
        if changes.keys() & _SAYS_WHAT_IT_DOES:
            require_own_secrets(self._services.kinds, caller, before, changed)
        await self._check(caller, changed)  # before the transaction: a template may take its time
        if "payload" in changes:
            await self._services.kinds.look_ahead(caller, changed.kind, changed.payload, "task.payload")
        anew = changed.schedule != before.schedule
        if anew:
            changed = rescheduled(before, changed, self._services.now())
        if validate_only:
            require_etag(task_name(before.task_id), before.etag, etag)
            async with self._services.database.tenant(tenant, read=True) as tx:
                await self._check_started(tx, caller, changed)
            return changed
        async with self._services.database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Task)
            if again is not None:
                return again
            current = await self._own(tx, caller, task_id, etag or before.etag)
            await self._check_started(tx, caller, changed)
            if anew:  # it may have fired since it was read
                changed = rescheduled(current, changed, self._services.now())
            changed = await store.update(tx, tenant.organization_id, changed, scheduled=anew)
            if changed.text_etag == changed.etag:
                await embeddings.forget(tx, tenant, current, self._services.embedder.name)
                await embeddings.order(tx, self._services.queue, tenant, changed, self._services.embedder.name)
            await self._audit(tx, caller, "task.update", changed, paths=sorted(changes))
            await remember(tx, tenant, caller.request_key, replace(changed, secrets={}))
            return changed

    async def delete(self, caller: Caller, task_id: str, etag: str = "", *, cancel_executions: bool = False) -> None:
        """Delete a task. Raises NotFound, Aborted(ETAG_MISMATCH), PermissionDenied, FailedPrecondition(TASK_IN_USE)."""
        tenant = caller.tenant
        organization_id = tenant.organization_id
        async with self._services.database.tenant(tenant) as tx:
            if await recall(tx, tenant, caller.request_key, _Deleted) is not None:
                return
            await dependency_store.lock_graph(tx, organization_id)
            task = await self._own(tx, caller, task_id, etag)
            waiting = await dependency_store.downstream(tx, organization_id, [task_id])
            if waiting:
                raise _in_use(task_id, sorted(edge.task_id for edge in waiting))
            await store.delete(tx, organization_id, task_id)
            await level_store.delete(tx, organization_id, task_id)
            await embeddings.forget(tx, tenant, task, self._services.embedder.name)
            await self._cancel(tx, organization_id, task, blocked_only=not cancel_executions)
            await self._audit(tx, caller, "task.delete", task)
            await remember(tx, tenant, caller.request_key, _Deleted(task_id))

    async def pause(self, caller: Caller, task_id: str, reason: str = "") -> Task:
        """Neither its schedule nor its dependencies start it. Raises NotFound, FailedPrecondition, PermissionDenied."""
        return await self._become(caller, task_id, TaskState.PAUSED, "task.pause", reason)

    async def resume(self, caller: Caller, task_id: str) -> Task:
        """Let its schedule and its dependencies start it again. Raises as `pause`."""
        return await self._become(caller, task_id, TaskState.ACTIVE, "task.resume")

    async def _become(self, caller: Caller, task_id: str, wanted: TaskState, action: str, reason: str = "") -> Task:
        tenant = caller.tenant
        async with self._services.database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Task)
            if again is not None:
                return again
            task = await self._own(tx, caller, task_id)
            if task.state is wanted:
                raise illegal_state(task_name(task_id), task.state, wanted, "there is nothing to do")
            if wanted is TaskState.ACTIVE:
                await self._resume_schedule(tx, caller, task)
            task = await store.set_state(tx, tenant.organization_id, task_id, wanted, reason, new_id().hex)
            await self._audit(tx, caller, action, task, why=reason)
            await remember(tx, tenant, caller.request_key, replace(task, secrets={}))
            return task

    async def _resume_schedule(self, tx: Transaction, caller: Caller, task: Task) -> None:
        ahead = resumed(task, self._services.now())
        if ahead.settled_until is not None:
            organization_id = caller.tenant.organization_id
            await schedule_store.settle(
                tx, organization_id, task.task_id, ahead.settled_until, ahead.next_fire_at, ahead.skipped
            )

    async def _own(self, tx: Transaction, caller: Caller, task_id: str, etag: str = "") -> Task:
        task = await store.lock(tx, caller.tenant.organization_id, task_id)
        require_owner(caller, task)
        require_etag(task_name(task.task_id), task.etag, etag)
        return task

    async def _cancel(self, tx: Transaction, organization_id: UUID, task: Task, *, blocked_only: bool) -> None:
        """Cancel what has not ended; what waits for dependencies, which are gone, in any case."""
        running = await execution_store.blocked_of(tx, organization_id, task.task_id)
        if not blocked_only:
            running = sorted({*running, *await execution_store.open_of(tx, organization_id, task.uid)})
        await self._services.queue.lock_keys(tx, organization_id, running)
        await self._services.queue.cancel_many(tx, organization_id, running, "TASK_DELETED")
        await execution_store.unblock(tx, organization_id, running)

    async def _require_free(self, caller: Caller, task_id: str) -> None:
        try:
            await self.get(caller, task_id)
        except NotFound:
            return
        raise AlreadyExists("Task", task_name(task_id))

    async def _check(self, caller: Caller, task: Task) -> None:
        self._services.kinds.admit(caller, task.kind, task.payload)
        await self._services.filling.check(task)
        if task.schedule is not None:
            check_schedule(task.schedule, "task.schedule")
            check_overlap(task)
            if task.needs:
                raise InvalidArgument.field(
                    "task.variables",
                    f"a schedule can give no value to {', '.join(task.needs)}: give them defaults",
                )

    async def _check_started(self, tx: Transaction, caller: Caller, task: Task) -> None:
        """Refuse variables that nobody can give to a task which others start. It is locked."""
        if started_in_vain(task) and await dependency_store.upstream(tx, caller.tenant.organization_id, [task.task_id]):
            raise InvalidArgument.field("task.variables", started_in_vain(task))

    async def _audit(
        self, tx: Transaction, caller: Caller, action: str, task: Task, *, why: str = "", **details: Any
    ) -> None:
        owner = "" if task.user_id == caller.tenant.user_id else f"users/{task.user_id}"
        tell(tx, self._services.changed)
        entry = AuditEntry(action, task_name(task.task_id), reason=why, details=details, on_behalf_of=owner)
        await self._services.audit.write(tx, caller, entry)


def require_owner(caller: Caller, task: Task) -> None:
    """A task is changed by its owner and by administrators. Raises PermissionDenied(ROLE_INSUFFICIENT)."""
    require_to_own(caller, task.task_id, task.user_id)


def require_to_own(caller: Caller, task_id: str, user_id: UUID) -> None:
    """As `require_owner`, of a task of that user."""
    if user_id != caller.tenant.user_id and not administers(caller):
        require_administrator(caller, f"change {task_name(task_id)} of users/{user_id}")


def _in_use(task_id: str, by: list[str]) -> FailedPrecondition:
    names = ", ".join(task_name(one) for one in by[:20])
    return FailedPrecondition(
        Reason.TASK_IN_USE,
        f"{task_name(task_id)} cannot be deleted: {names} depend{'s' if len(by) == 1 else ''} on it",
        PreconditionViolation("TASK_DEPENDENCIES", task_name(task_id), f"remove the dependencies of {names} first"),
    )
