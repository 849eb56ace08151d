"""Reports are made after the end of an execution, by a work item of their own: however it ended, on any server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    ProcessDied,
    Reason,
    RemoteError,
    ResourceExhausted,
)
from stationmaster_server.identity.store import get_user
from stationmaster_server.identity.system import system_caller
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.sessions import store_messages
from stationmaster_server.sessions.model import Message
from stationmaster_server.storage.model import NewReport, ReportFormat
from stationmaster_server.tasks import execution_store, store
from stationmaster_server.tasks.kinds.base import ReportsItself
from stationmaster_server.tasks.model import Execution, execution_name
from stationmaster_server.tasks.reports.gathering import Gathered
from stationmaster_server.tasks.reports.model import Report, Section
from stationmaster_server.tasks.reports.rendering import RENDERERS, TIME_LIMIT
from stationmaster_server.tasks.reports.telling import tell
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.work.model import Failed, NewWork, Outcome, Priority, Released, Succeeded
from stationmaster_server.work.run import Run

KIND = "task_report"
MOST_MESSAGES = 5_000
_EVENTS, _MESSAGES = 500, 1_000  # of a page


async def order(tx: Transaction, services: TaskServices, caller: Caller, execution: Execution) -> None:
    """Have the reports of an execution made, in the transaction that deals with its end. Those of an earlier end go."""
    if execution.report_ids:
        await services.reports.withdraw(tx, caller, execution.id, f"{execution_name(execution.id)} has ended again")
    if execution.report_formats:
        work = NewWork(
            organization_id=caller.tenant.organization_id,
            user_id=execution.user_id,
            kind=KIND,
            subject_id=execution.id,
            payload={"request_id": caller.request_id},
            priority=Priority.LOW,
        )
        await services.queue.submit_many(tx, [work], bounded=False)


class Reporting:
    """The handler of work items of kind `task_report`."""

    def __init__(self, services: TaskServices, pools: Pools) -> None:
        self._services = services
        self._pools = pools

    async def __call__(self, run: Run) -> Outcome:
        """Make every format that was asked for, one after another, of the end that the execution has now."""
        item = run.item
        caller = system_caller(item.organization_id, item.user_id, request_id=item.payload["request_id"])
        try:
            execution = await self._execution(caller, item.subject_id)
        except NotFound:
            return Succeeded()  # it was forgotten
        if execution.finished_at is None:
            return Succeeded()  # it was retried: reports are ordered again at its end
        report = await self._report(caller, execution)
        try:
            made, problems = await self._render_all(execution, report)
        except ResourceExhausted as busy:
            return Released(datetime.now(UTC) + busy.retry_after)  # not its fault
        # All at once with the item's end: after a crash none is there twice.
        async with self._services.database.tenant(caller.tenant) as tx:
            problems += await self._store(tx, caller, execution, made)
            outcome = Failed("; ".join(problems), False, "REPORT_NOT_MADE") if problems else Succeeded()
            await self._services.queue.complete(tx, run, outcome)
        return outcome

    async def _render_all(self, execution: Execution, report: Report) -> tuple[list[NewReport], list[str]]:
        """Every format; one that takes too long or too much costs no other one.

        Raises ResourceExhausted while the server is too busy.
        """
        made, problems = [], []
        for each in execution.report_formats:
            try:
                made.append(NewReport(execution.id, report.title, each, await self._render(report, each)))
            except (DeadlineExceeded, ResourceExhausted, ProcessDied, RemoteError) as error:
                if isinstance(error, ResourceExhausted) and error.reason is Reason.SERVER_OVERLOADED:
                    raise
                problems.append(f"{each}: {error}")
        return made, problems

    async def _render(self, report: Report, report_format: ReportFormat) -> bytes:
        return await self._pools.cpu(RENDERERS[report_format], report, timeout=TIME_LIMIT)

    async def _store(
        self, tx: Transaction, caller: Caller, execution: Execution, made: Sequence[NewReport]
    ) -> list[str]:
        """Keep those that are not too large; what is wrong with the others. Of an end that is over none is kept."""
        problems: list[str] = []
        tx.audited = True
        ended_at = await execution_store.hold_end(tx, caller.tenant.organization_id, execution.id)
        if ended_at is None or ended_at != execution.finished_at:
            return problems
        for new in made:
            try:
                await self._services.reports.add(tx, caller, new)
            except FailedPrecondition as error:
                problems.append(error.message)
        return problems

    async def _execution(self, caller: Caller, execution_id: UUID) -> Execution:
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            return await execution_store.get(tx, caller.tenant.organization_id, execution_id, None)

    async def _report(self, caller: Caller, execution: Execution) -> Report:
        told = await self._told(caller, execution.id)
        messages, notes = await self._messages(caller, execution.session_id) if execution.session_id else ([], ())
        title = await self._title(caller, execution)
        sections = await self._sections(caller, execution)
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            owner = await get_user(tx, caller.tenant.organization_id, execution.user_id)
        name = owner.display_name if owner else ""
        return tell(execution, title, told.events, messages, sections, notes=(*told.notes, *notes), owner_name=name)

    async def _title(self, caller: Caller, execution: Execution) -> str:
        if execution.task_id is None:
            return f"{execution.kind.capitalize()} of {execution.created_at:%Y-%m-%d %H:%M} UTC"
        try:
            async with self._services.database.tenant(caller.tenant, read=True) as tx:
                task = await store.get(tx, caller.tenant.organization_id, execution.task_id)
        except NotFound:
            return execution.task_id
        return task.display_name or task.task_id

    async def _sections(self, caller: Caller, execution: Execution) -> Sequence[Section] | None:
        kind = self._services.kinds.get(execution.kind)
        return await kind.sections(caller, execution) if isinstance(kind, ReportsItself) else None

    async def _told(self, caller: Caller, execution_id: UUID) -> Gathered:
        gathered, after = Gathered(), 0
        while page := await self._services.log.read(caller.tenant, execution_id, after, _EVENTS):
            gathered.add(page)
            after = page[-1].sequence
        return gathered

    async def _messages(self, caller: Caller, session_id: UUID) -> tuple[list[Message], tuple[str, ...]]:
        """The messages of a session, and what is to be said when it has more."""
        messages: list[Message] = []
        cursor = None
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            while len(messages) < MOST_MESSAGES:
                request = PageRequest(_MESSAGES, cursor)
                page = await store_messages.list_messages(
                    tx, caller.tenant.organization_id, session_id, "", "create_time", request
                )
                messages += page.items
                cursor = page.next_cursor
                if cursor is None:
                    return messages, ()
        return messages, (
            f"The conversation goes on: messages and totals are of its first {MOST_MESSAGES:,} messages.",
        )
