"""What follows from the end of an execution, however it ended: its last event, the tasks that waited for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Aborted, NotFound, StationmasterError, Unavailable
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.identity.system import system_caller
from stationmaster_server.tasks import dependency_store, events, execution_store, reporting, store
from stationmaster_server.tasks.graph import starts
from stationmaster_server.tasks.leaving import leave_session
from stationmaster_server.tasks.model import (
    DependencyMode,
    Execution,
    ExecutionState,
    Task,
    TaskState,
    Trigger,
    execution_name,
    task_name,
    work_kind,
)
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.starting import key_by_itself, look_again, start
from stationmaster_server.tasks.sync.changed import tell
from stationmaster_server.work import follow_up_store
from stationmaster_server.work.model import WorkItem

logger = logging.getLogger(__name__)

_BATCH = 200
_LOOK = timedelta(seconds=1)
_PATIENCE = timedelta(milliseconds=200)
"""How long one organization's locks are waited for while the ends of others wait."""


class FollowUp:
    """Looks for executions that have ended, and does what follows, once across all servers."""

    def __init__(self, services: TaskServices) -> None:
        self._services = services
        self._kinds = [work_kind(kind) for kind in services.kinds]
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._forever(), name="executions' follow-up")

    async def close(self) -> None:
        """Stop; what is left is done by whoever looks next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """An attempt has ended on this server."""
        self._wake.set()

    async def run_once(self) -> int:
        """Deal with a batch; returns how many. What cannot be dealt with holds up nobody else. Raises Unavailable.

        An organization whose graph, tasks or keys somebody holds is left to the next look.
        """
        handled, busy = 0, set[UUID]()
        while True:
            async with self._services.database.system(autocommit=True) as tx:
                found = await follow_up_store.look(tx, self._kinds, _BATCH, without=busy)
            held = set[UUID]()
            for organization_id, ids in found.items():
                try:
                    handled += await self._deal_with(organization_id, ids)
                except Aborted:
                    held.add(organization_id)
            if not held:
                return handled
            busy |= held

    async def _deal_with(self, organization_id: UUID, ids: Sequence[UUID]) -> int:
        try:
            return await self._deal_with_all(organization_id, ids)
        except (Unavailable, Aborted):
            raise
        except Exception:
            if len(ids) == 1:
                logger.exception("%s could not be followed up", execution_name(ids[0]))
                return 0
            logger.exception("ended executions are followed up one by one")
            return sum([await self._deal_with(organization_id, [one]) for one in ids])

    async def _deal_with_all(self, organization_id: UUID, ids: Sequence[UUID]) -> int:
        """One transaction, in the order of locks that everybody keeps: graph, tasks, keys, items, streams."""
        async with self._services.database.system() as tx:
            await tx.wait_at_most(_PATIENCE)
            await self._lock_tasks(tx, organization_id, ids)
            items = await follow_up_store.lock(tx, organization_id, ids)
            await self._tell(tx, organization_id, items)
            await follow_up_store.done(tx, items)
        return len(items)

    async def _lock_tasks(self, tx: Transaction, organization_id: UUID, ids: Sequence[UUID]) -> None:
        """Lock the tasks that may be paused or started, and the keys of what may be let go or begun."""
        of_tasks = await execution_store.tasks_of(tx, organization_id, ids)
        if not of_tasks:
            return
        await dependency_store.hold_graph(tx, organization_id)  # or there were dependents that are not locked
        edges = await dependency_store.downstream(tx, organization_id, list(of_tasks))
        dependents = {edge.task_id for edge in edges}
        failed = {task_id for task_id, scheduled_failure in of_tasks.items() if scheduled_failure}
        tasks = await store.lock_many(tx, organization_id, dependents | failed)
        waiting = await execution_store.blocked_of(tx, organization_id, *dependents)
        await self._services.queue.lock_keys(tx, organization_id, waiting, {key_by_itself(task) for task in tasks})

    async def _forever(self) -> None:
        while True:
            self._wake.clear()
            handled = 0
            try:
                handled = await self.run_once()
            except StationmasterError as error:
                logger.warning("ended executions could not be followed up, the next look will: %s", error)
            except Exception:
                logger.exception("ended executions could not be followed up, the next look will")
            if handled >= _BATCH:
                continue
            try:
                async with asyncio.timeout(_LOOK.total_seconds()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _tell(self, tx: Transaction, organization_id: UUID, items: Sequence[WorkItem]) -> None:
        """What most executions need is one statement for all of them."""
        request_ids = {item.item_id: item.payload["request_id"] for item in items}
        # Those that were forgotten are not among them.
        ended = [
            (system_caller(organization_id, execution.user_id, request_id=request_ids[execution.id]), execution)
            for execution in await execution_store.get_many(tx, organization_id, list(request_ids))
        ]
        last = {one.id: events.state_changed(one.state, one.attempts, one.reason, one.message) for _, one in ended}
        await self._services.log.hand_over(tx, organization_id, last, None)
        await execution_store.unblock(tx, organization_id, list(last))
        await self._services.audit.write_many(tx, [(caller, _audited(execution)) for caller, execution in ended])
        for caller, execution in ended:
            await reporting.order(tx, self._services, caller, execution)
            if execution.session_id is not None:
                why = f"{execution_name(execution.id)} ended as {execution.state}"
                await leave_session(tx, self._services, caller, execution.ran_in, why)
                await execution_store.leave(tx, organization_id, execution.id)
            await self._pause_on_failure(tx, caller, execution)
        await self._wake_dependents(tx, organization_id, [execution for _, execution in ended])

    async def _pause_on_failure(self, tx: Transaction, caller: Caller, execution: Execution) -> None:
        task_id = execution.task_id
        if task_id is None or execution.state is not ExecutionState.FAILED or execution.trigger is not Trigger.SCHEDULE:
            return
        try:
            task = await store.lock(tx, caller.tenant.organization_id, task_id)
        except NotFound:
            return  # it was deleted
        if task.uid != execution.task_uid:
            return  # another one has its name
        if task.schedule is None or not task.schedule.pause_on_failure or task.state is TaskState.PAUSED:
            return
        why = f"{execution_name(execution.id)} failed: {execution.message}"[:1000]
        await store.set_state(tx, caller.tenant.organization_id, task_id, TaskState.PAUSED, why, new_id().hex)
        tell(tx, self._services.changed)
        await self._services.audit.write(tx, caller, AuditEntry("task.pause", task_name(task_id), reason=why))

    async def _wake_dependents(self, tx: Transaction, organization_id: UUID, ended: Sequence[Execution]) -> None:
        causes = {execution.task_uid: execution for execution in ended if execution.task_uid is not None}
        if not causes:
            return
        names = {execution.task_id for execution in causes.values() if execution.task_id is not None}
        edges = await dependency_store.downstream(tx, organization_id, sorted(names))
        woken = {edge.task_id: causes[edge.uid].id for edge in edges if edge.uid in causes}
        for dependent, cause in sorted(woken.items()):
            try:  # locked, so that of two tasks that end at once the second sees the first
                task = await store.lock(tx, organization_id, dependent)
            except NotFound:
                continue  # it was deleted
            caller = system_caller(organization_id, task.user_id, request_id=f"execution-{cause}")
            if await execution_store.blocked_of(tx, organization_id, dependent):
                await look_again(tx, self._services, caller, dependent)
            elif task.dependency_mode is DependencyMode.START and task.state is TaskState.ACTIVE:
                await self._start(tx, caller, task)

    async def _start(self, tx: Transaction, caller: Caller, task: Task) -> None:
        organization_id = caller.tenant.organization_id
        edges = await dependency_store.upstream(tx, organization_id, [task.task_id])
        if starts(edges, await execution_store.last_begun(tx, organization_id, task.uid)):
            await start(tx, self._services, caller, task, Trigger.DEPENDENCY)


def _audited(execution: Execution) -> AuditEntry:
    details = {"state": execution.state.value, "kind": execution.kind, "attempts": execution.attempts}
    if execution.task_id is not None:
        details["task"] = task_name(execution.task_id)
    return AuditEntry("execution.end", execution_name(execution.id), reason=execution.reason, details=details)
