"""Executions as callers see them: submitted, watched over, cancelled, retried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.optimistic import ChangedMeanwhile, until_unchanged
from stationmaster_server.db.requests import look, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionViolation,
    Reason,
)
from stationmaster_server.identity.model import AuditEntry, owner_scope
from stationmaster_server.tasks import (
    attempt_store,
    dependency_store,
    events,
    execution_store,
    keys,
    listing_store,
    stats_store,
    store,
)
from stationmaster_server.tasks.execution_store import NewRow, new_row
from stationmaster_server.tasks.graph import Verdict, verdict, why_waiting
from stationmaster_server.tasks.leaving import leave_session
from stationmaster_server.tasks.model import (
    Execution,
    ExecutionState,
    KindStats,
    OnConflict,
    Options,
    RanIn,
    Spec,
    Task,
    Trigger,
    execution_name,
    task_name,
)
from stationmaster_server.tasks.owners import require_own_secrets
from stationmaster_server.tasks.repeats import require_same
from stationmaster_server.tasks.service import require_owner
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.starting import look_again
from stationmaster_server.tasks.submitting import Submitting
from stationmaster_server.tasks.work import new_work

MOST_IN_AUDIT = 100
_REPLACE = OnConflict.TERMINATE_EXISTING


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """What differs from the task's own. Fields of `options` that are set replace the task's."""

    variables: Mapping[str, Any]
    options: Options
    set_options: frozenset[str] = frozenset()
    run_at: datetime | None = None
    idempotency_key: str = ""
    idempotency_ttl_seconds: float = 86_400
    labels: Mapping[str, str] | None = None
    ignore_dependencies: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """What is remembered of an answer that names executions."""

    ids: list[UUID]


class Executions:
    """Submits and looks after executions. Every change is one transaction with its events and its audit row."""

    def __init__(self, services: TaskServices) -> None:
        self._services = services
        self._submitting = Submitting(services, self._submit_alone)

    async def execute(self, caller: Caller, task_id: str, request: ExecuteRequest) -> Execution:
        """Submit an execution of a task, as it is when that commits.

        Raises NotFound, InvalidArgument, AlreadyExists, ResourceExhausted(QUEUE_FULL), Aborted(CONCURRENT_CHANGE).
        """
        return await until_unchanged(lambda: self._execute(caller, task_id, request), task_name(task_id))

    async def _execute(self, caller: Caller, task_id: str, request: ExecuteRequest) -> Execution:
        tenant = caller.tenant
        async with self._services.database.tenant(tenant, read=True) as tx:
            again = await look(tx, tenant, caller.request_key, Execution)
            if again is not None:
                return again
            task = await store.get(tx, tenant.organization_id, task_id)
        if task.secrets:  # variables may send them anywhere
            require_owner(caller, task)
            if request.variables:
                require_own_secrets(self._services.kinds, caller, task)
        payload, variables = await self._services.filling.fill(task, request.variables)
        self._services.kinds.admit(caller, task.kind, payload)
        options = replace(task.options, **{name: getattr(request.options, name) for name in request.set_options})
        spec = Spec(
            task.kind,
            payload,
            keys.fill(options, keys.context(task_id, variables, None)),
            request.run_at,
            request.idempotency_key,
            request.idempotency_ttl_seconds,
            {**task.labels, **(request.labels or {})},
            task.secrets,
        )
        async with self._services.database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Execution)
            if again is not None:
                return again
            organization_id = tenant.organization_id
            waits = not request.ignore_dependencies and await dependency_store.neighbours(
                tx, organization_id, [task_id], up=True
            )
            lock = store.lock if waits else store.share
            now = await lock(tx, organization_id, task_id)
            if (now.uid, now.etag) != (task.uid, task.etag):  # changed while its templates were filled in
                raise ChangedMeanwhile
            blocked_by = await self._held_back(tx, caller, task) if waits else ""
            row = new_row(new_id(), spec, task=task, variables=variables, blocked_by=blocked_by)
            execution = await self._submit(tx, caller, spec, row, Trigger.MANUAL, task=task)
            await remember(tx, tenant, caller.request_key, execution)
            return execution

    async def submit(
        self, caller: Caller, spec: Spec, execution_id: UUID | None = None, on_conflict: OnConflict = OnConflict.FAIL
    ) -> Execution:
        """Submit an execution without a task. Raises InvalidArgument, AlreadyExists, ResourceExhausted(QUEUE_FULL).

        Under a key of its own it is submitted once; AlreadyExists when the key is one of something else.
        """
        spec = self._checked(spec, "execution")
        if execution_id is None and self._is_plain(caller, spec):
            return await self._submitting.submit(caller, spec)
        return await self._submit_alone(caller, spec, execution_id, on_conflict)

    def _is_plain(self, caller: Caller, spec: Spec) -> bool:
        """Whether nothing is to be looked up for it, and nothing refused unless it is a repeat."""
        if spec.idempotency_key or spec.options.concurrency is not None:
            return False
        try:
            self._services.kinds.admit(caller, spec.kind, spec.payload)
        except PermissionDenied:
            return False
        return True

    async def _submit_alone(
        self, caller: Caller, spec: Spec, execution_id: UUID | None = None, on_conflict: OnConflict = OnConflict.FAIL
    ) -> Execution:
        tenant = caller.tenant
        async with self._services.database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Execution)
            if again is not None:
                return again
            self._services.kinds.admit(caller, spec.kind, spec.payload)
            if execution_id is not None:
                await self._require_free(tx, caller, execution_id, on_conflict)
            row = new_row(execution_id or new_id(), spec)
            execution = await self._submit(tx, caller, spec, row, Trigger.AD_HOC, on_conflict=on_conflict)
            await remember(tx, tenant, caller.request_key, execution)
            return execution

    async def submit_many(self, caller: Caller, specs: Sequence[Spec]) -> Sequence[UUID]:
        """Submit executions without a task, all or none. Raises as `submit`."""
        specs = self._all_checked(specs)
        tenant = caller.tenant
        async with self._services.database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Names)
            if again is not None:
                return again.ids
            for spec in specs:
                self._services.kinds.admit(caller, spec.kind, spec.payload)
            rows = [new_row(new_id(), spec) for spec in specs]
            works = [new_work(tenant, spec, row.id, caller.request_id) for spec, row in zip(specs, rows, strict=True)]
            items = await self._services.queue.submit_many(tx, works)
            ids = [item.item_id for item in items]
            asked = list(zip(rows, ids, (spec.idempotency_key for spec in specs), strict=True))
            new = [row for row, item_id, _ in asked if row.id == item_id]
            await execution_store.insert(tx, tenant.organization_id, tenant.user_id, Trigger.AD_HOC, new)
            await require_same(tx, tenant.organization_id, [one for one in asked if one[0].id != one[1]])
            await self._audit(tx, caller, "execution.submit_many", "executions", ids)
            await remember(tx, tenant, caller.request_key, Names(list(ids)))
            return ids

    async def get(self, caller: Caller, execution_id: UUID) -> Execution:
        """One execution. Raises NotFound."""
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            return await self._get(tx, caller, execution_id)

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[Execution]:
        """A page of the executions that the caller sees. Raises InvalidArgument."""
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            return await listing_store.list_executions(
                tx, caller.tenant.organization_id, owner_scope(caller), filter_text, order_by, page
            )

    async def cancel(self, caller: Caller, execution_id: UUID, reason: str = "") -> Execution:
        """Cancel an execution: at once, or the worker that runs it is asked. Raises NotFound."""
        tenant = caller.tenant
        async with self._services.database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Execution)
            if again is not None:
                return again
            before = await self._get(tx, caller, execution_id)
            await self._services.queue.cancel(tx, tenant.organization_id, execution_id, "CANCELLED_BY_CALLER")
            await execution_store.unblock(tx, tenant.organization_id, [execution_id])
            after = await self._get(tx, caller, execution_id)
            entry = AuditEntry(
                "execution.cancel", execution_name(execution_id), reason=reason, details={"from": before.state.value}
            )
            await self._services.audit.write(tx, caller, entry)
            await remember(tx, tenant, caller.request_key, after)
            return after

    async def stats(self, caller: Caller) -> Sequence[KindStats]:
        """How many executions of each kind stand how; of kinds that nobody uses, too."""
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            return await stats_store.stats(tx, caller.tenant.organization_id, list(self._services.kinds))

    def _checked(self, spec: Spec, field: str) -> Spec:
        """What may be submitted, its secrets apart. Raises InvalidArgument."""
        kinds = self._services.kinds
        payload, secrets = kinds.part(spec.kind, spec.payload, f"{field}.payload")
        kinds.parse(spec.kind, spec.payload, f"{field}.payload")
        keys.require_plain(spec.options, f"{field}.options")
        return replace(spec, payload=payload, secrets=secrets)

    def _all_checked(self, specs: Sequence[Spec]) -> Sequence[Spec]:
        """The same of each. Raises InvalidArgument naming all that is wrong with any of them."""
        checked: list[Spec] = []
        wrong: list[FieldViolation] = []
        for place, spec in enumerate(specs):
            try:
                checked.append(self._checked(spec, f"executions[{place}]"))
            except InvalidArgument as error:
                wrong += error.violations or [FieldViolation(f"executions[{place}]", error.message)]
        if wrong:
            raise InvalidArgument.fields(wrong)
        return checked

    async def _get(self, tx: Transaction, caller: Caller, execution_id: UUID) -> Execution:
        return await execution_store.get(tx, caller.tenant.organization_id, execution_id, owner_scope(caller))

    async def _held_back(self, tx: Transaction, caller: Caller, task: Task) -> str:
        """What an execution of the task has to wait for, in words.

        The task is locked: whoever follows up the end of what it depends on must see this one, or be seen.
        """
        organization_id = caller.tenant.organization_id
        edges = await dependency_store.upstream(tx, organization_id, [task.task_id])
        what = verdict(edges)
        if what is Verdict.SKIP:
            failed = ", ".join(task_name(edge.depends_on) for edge in edges if edge.state == "FAILED")
            name = task_name(task.task_id)
            raise FailedPrecondition(
                Reason.ILLEGAL_TRANSITION,
                f"{name} cannot be executed: it depends on {failed}, which failed, with the policy SKIP",
                PreconditionViolation("TASK_DEPENDENCIES", name, "set ignore_dependencies to run it anyway"),
            )
        return why_waiting(edges) if what is Verdict.WAIT else ""

    async def _submit(
        self,
        tx: Transaction,
        caller: Caller,
        spec: Spec,
        row: NewRow,
        trigger: Trigger,
        *,
        task: Task | None = None,
        on_conflict: OnConflict = OnConflict.FAIL,
    ) -> Execution:
        organization_id = caller.tenant.organization_id
        waiting = await self._dependents(tx, organization_id, row.id) if on_conflict is _REPLACE else []
        work = new_work(
            caller.tenant, spec, row.id, caller.request_id, task=task, on_conflict=on_conflict, blocked=row.blocked
        )
        try:
            item, created = await self._services.queue.offer(tx, work, claim_here=True)
        except AlreadyExists:  # since it was looked for
            raise AlreadyExists("Execution", execution_name(row.id)) from None
        replaced: RanIn | None = None
        if created:
            if on_conflict is _REPLACE:
                replaced = await execution_store.delete(tx, organization_id, row.id)
            await execution_store.insert(tx, organization_id, caller.tenant.user_id, trigger, [row])
            if replaced:
                queued = events.state_changed(ExecutionState.QUEUED, 0, "TERMINATED_EXISTING")
                # From the worker that had it, the stream takes nothing more.
                await self._services.log.hand_over(tx, organization_id, {row.id: queued}, None)
                why = f"{execution_name(row.id)} was replaced"
                await self._services.reports.withdraw(tx, caller, row.id, why)
                await attempt_store.delete_made(tx, organization_id, row.id)
                await leave_session(tx, self._services, caller, replaced, why)
                for dependent in waiting:  # its end is nothing that anybody follows up
                    await look_again(tx, self._services, caller, dependent)
        elif item.item_id != row.id:
            await require_same(tx, organization_id, [(row, item.item_id, spec.idempotency_key)])
        name = execution_name(item.item_id)
        await self._audit(tx, caller, "execution.submit", name, [], task=task, created=created, replaced=bool(replaced))
        return replace(await self._get(tx, caller, item.item_id), existing=not created)

    async def _dependents(self, tx: Transaction, organization_id: UUID, execution_id: UUID) -> Sequence[str]:
        """The tasks that wait for the one of an execution, locked: before any key is."""
        names = sorted(await execution_store.tasks_of(tx, organization_id, [execution_id]))
        edges = await dependency_store.downstream(tx, organization_id, names) if names else []
        return [task.task_id for task in await store.lock_many(tx, organization_id, {edge.task_id for edge in edges})]

    async def _require_free(self, tx: Transaction, caller: Caller, execution_id: UUID, on_conflict: OnConflict) -> None:
        """An id may be chosen that nothing has, or, with a policy for that, an execution of the caller's own."""
        organization_id = caller.tenant.organization_id
        if not await execution_store.is_taken(tx, organization_id, execution_id):
            return
        try:
            await execution_store.get(tx, organization_id, execution_id, caller.tenant.user_id)
        except NotFound:
            raise AlreadyExists("Execution", execution_name(execution_id)) from None
        if on_conflict is OnConflict.FAIL:
            raise AlreadyExists("Execution", execution_name(execution_id))

    async def _audit(
        self,
        tx: Transaction,
        caller: Caller,
        action: str,
        resource: str,
        ids: Sequence[UUID],
        *,
        task: Task | None = None,
        created: bool = True,
        replaced: bool = False,
    ) -> None:
        details: dict[str, Any] = {}
        if ids:
            details |= {"count": len(ids), "executions": [execution_name(one) for one in ids[:MOST_IN_AUDIT]]}
        if task is not None:
            details["task"] = task_name(task.task_id)
        if not created:
            details["existing"] = True
        if replaced:
            details["replaced"] = True
        await self._services.audit.write(tx, caller, AuditEntry(action, resource, details=details))
