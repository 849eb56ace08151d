"""Goes through what is old, target by target; each step is a short transaction, and told of."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Cursor, PageRequest
from stationmaster_server.events.log import EventLog
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.sessions import store as session_store
from stationmaster_server.sessions.events import DELTAS
from stationmaster_server.sessions.model import session_name
from stationmaster_server.sessions.workspaces import Workspaces
from stationmaster_server.tasks.cleanup import store
from stationmaster_server.tasks.model import execution_name
from stationmaster_server.tasks.workspaces import ExecutionWorkspaces, remove_tree

BATCH = 50
"""Executions, or sessions, at once."""
_ROWS = 5_000
"""Rows that one transaction deletes."""
_LIMIT = timedelta(minutes=10)
"""To remove one folder."""


class Target(StrEnum):
    """What is cleaned up."""

    EXECUTIONS = "executions"
    WORKSPACES = "workspaces"
    DELTAS = "deltas"
    REQUEST_IDS = "request_ids"


@dataclass(frozen=True, slots=True)
class Tools:
    """What the clean-up works with."""

    database: Database
    log: EventLog
    audit: AuditLog
    pools: Pools
    sessions: Workspaces
    executions: ExecutionWorkspaces


class Cleaner:
    """Cleans one organization up. `counts` has how much was deleted; in a dry run, how much would be."""

    def __init__(
        self, tools: Tools, caller: Caller, before: datetime, counts: Mapping[str, int], tell: Callable[[], None]
    ) -> None:
        self._tools = tools
        self._caller = caller
        self._organization_id = caller.tenant.organization_id
        self._before = before
        self._tell = tell
        self.counts = Counter(counts)

    async def count(self, target: Target) -> None:
        """How much there is to clean up; what there is none of is told, too."""
        self.counts[target.value] += 0
        tools, organization_id = self._tools, self._organization_id
        async with tools.database.tenant(self._caller.tenant, read=True) as tx:
            if target is Target.EXECUTIONS:
                self._add("executions", await store.count_executions(tx, organization_id, self._before))
            elif target is Target.REQUEST_IDS:
                self._add("request_ids", await store.count_requests(tx, organization_id))
        if target in (Target.WORKSPACES, Target.DELTAS):
            async for sessions in self._ended_sessions():
                for session_id in sessions:
                    await self._count_of(target, session_id)

    async def clean(self, target: Target) -> AsyncGenerator[None, None]:
        """Delete; yields between two batches."""
        match target:
            case Target.EXECUTIONS:
                steps = self._executions()
            case Target.WORKSPACES:
                steps = self._workspaces()
            case Target.DELTAS:
                steps = self._deltas()
            case Target.REQUEST_IDS:
                steps = self._request_ids()
        async for _ in steps:
            yield

    async def _count_of(self, target: Target, session_id: UUID) -> None:
        if target is Target.WORKSPACES:
            self._add("workspaces", int(self._tools.sessions.path(session_id).is_dir()))
            return
        async with self._tools.database.tenant(self._caller.tenant, read=True) as tx:
            self._add("deltas", await store.count_deltas(tx, self._organization_id, session_id, DELTAS))

    async def _executions(self) -> AsyncGenerator[None, None]:
        database, tenant, organization_id = self._tools.database, self._caller.tenant, self._organization_id
        while True:
            async with database.tenant(tenant, read=True) as tx:
                stray = await store.stray_streams(tx, organization_id, self._before, BATCH)
            if not stray:
                break
            await self._rest_of(stray)
            yield
        while True:
            async with database.tenant(tenant, read=True) as tx:
                ids = await store.old_executions(tx, organization_id, self._before, BATCH)
            if not ids:
                return
            async with database.tenant(tenant) as tx:
                gone, reports = await store.delete_executions(tx, organization_id, self._before, ids)
                await self._tools.audit.write(tx, self._caller, _deleted(gone, reports))
            self._add("executions", len(gone))
            self._add("reports", reports)
            await self._rest_of(gone)
            yield
            if not gone:
                return  # somebody is at them: the next clean-up will find what is left

    async def _rest_of(self, ids: Sequence[UUID]) -> None:
        """What executions that are gone have left. Their streams go last: by these, what is left is found again."""
        organization_id, removed = self._organization_id, 0
        for what, delete in (("events", store.delete_events), ("crawl_pages", store.delete_pages)):
            deleted = _ROWS
            while deleted == _ROWS:
                async with self._tools.database.tenant(self._caller.tenant) as tx:
                    deleted = await delete(tx, organization_id, ids, _ROWS)
                    tx.audited = True  # with the executions
                self._add(what, deleted)
        for execution_id in ids:
            removed += await self._tools.pools.blocking(
                self._tools.executions.remove, organization_id, execution_id, timeout=_LIMIT
            )
        self._add("workspaces", removed)
        async with self._tools.database.tenant(self._caller.tenant) as tx:
            await store.delete_streams(tx, organization_id, ids)
            tx.audited = True  # with the executions

    async def _workspaces(self) -> AsyncGenerator[None, None]:
        async for sessions in self._ended_sessions():
            removed = []
            for session_id in sessions:
                path = self._tools.sessions.path(session_id)
                if await self._tools.pools.blocking(remove_tree, path, timeout=_LIMIT):
                    removed.append(session_id)
            if removed:
                await self._audit("workspace.delete", removed)
            self._add("workspaces", len(removed))
            yield

    async def _deltas(self) -> AsyncGenerator[None, None]:
        async for sessions in self._ended_sessions():
            compacted = [session_id for session_id in sessions if await self._compact(session_id)]
            if compacted:
                await self._audit("session.compact", compacted)
            yield

    async def _compact(self, session_id: UUID) -> int:
        """Delete the deltas that a session's messages stand for."""
        tenant, organization_id, total = self._caller.tenant, self._organization_id, 0
        async with self._tools.database.tenant(tenant, read=True) as tx:
            first, last = await store.delta_range(tx, organization_id, session_id)
        for start in range(first, last + 1, _ROWS) if last else ():
            end = min(start + _ROWS - 1, last)
            async with self._tools.database.tenant(tenant) as tx:
                total += await self._tools.log.compact(tx, organization_id, session_id, start, end, DELTAS)
                tx.audited = True  # for the whole batch, afterwards: they say nothing that messages do not
        self._add("deltas", total)
        return total

    async def _request_ids(self) -> AsyncGenerator[None, None]:
        deleted = _ROWS
        while deleted == _ROWS:
            async with self._tools.database.tenant(self._caller.tenant) as tx:
                deleted = await store.delete_requests(tx, self._organization_id, _ROWS)
                tx.audited = True  # as when they expire by themselves
            self._add("request_ids", deleted)
            yield

    async def _ended_sessions(self) -> AsyncGenerator[list[UUID], None]:
        """The sessions that were terminated or archived before the time, batch by batch."""
        when = f'update_time < "{self._before.isoformat()}"'
        filter_text = f'(state = "TERMINATED" OR state = "ARCHIVED") AND {when}'
        after: Cursor | None = None
        while True:
            async with self._tools.database.tenant(self._caller.tenant, read=True) as tx:
                page = await session_store.list_sessions(
                    tx,
                    self._organization_id,
                    None,
                    filter_text,
                    "create_time",
                    PageRequest(BATCH, after),
                    archived=True,
                )
            yield [session.id for session in page.items]
            after = page.next_cursor
            if after is None:
                return

    async def _audit(self, action: str, session_ids: Sequence[UUID]) -> None:
        names = [session_name(one) for one in session_ids]
        entry = AuditEntry(action, "sessions", details={"count": len(names), "sessions": names})
        async with self._tools.database.tenant(self._caller.tenant) as tx:
            await self._tools.audit.write(tx, self._caller, entry)

    def _add(self, what: str, count: int) -> None:
        if count:
            self.counts[what] += count
            self._tell()


def _deleted(ids: Sequence[UUID], reports: int) -> AuditEntry:
    details = {"count": len(ids), "reports": reports, "executions": [execution_name(one) for one in ids]}
    return AuditEntry("execution.delete", "executions", details=details)
