"""Goes through what is old, target by target; each step is a short transaction, and told of."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import Cursor, PageRequest
from stationmaster_server.events.log import EventLog
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.sessions import store as session_store
from stationmaster_server.sessions.events import DELTAS
from stationmaster_server.sessions.model import session_name
from stationmaster_server.storage import file_store
from stationmaster_server.storage.places.place import Home
from stationmaster_server.tasks.cleanup import store
from stationmaster_server.tasks.cleanup.forgetting import Forgetting, Tools
from stationmaster_server.tasks.workspaces import remove_tree

BATCH = 50
"""Sessions at once."""
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


class Cleaner:
    """Cleans one organization up. `counts` has how much was deleted; in a dry run, how much would be."""

    def __init__(
        self,
        tools: Tools,
        log: EventLog,
        caller: Caller,
        before: datetime,
        counts: Mapping[str, int],
        tell: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._log = log
        self._forgetting = Forgetting(tools, caller.tenant.organization_id, before, caller)
        self._caller = caller
        self._organization_id = caller.tenant.organization_id
        self._before = before
        self._tell = tell
        self.counts = Counter(counts)

    async def count(self, target: Target) -> None:
        """How much there is to clean up; what there is none of is told, too."""
        self.counts[target.value] += 0
        tools, organization_id = self._tools, self._organization_id
        if target is Target.EXECUTIONS:
            self._add("executions", await self._forgetting.count())
        if target is Target.REQUEST_IDS:
            async with tools.database.system() as tx:
                self._add("request_ids", await store.count_requests(tx, organization_id))
        if target is Target.DELTAS:
            async for sessions in self._ended_sessions():
                for session_id in sessions:
                    await self._count_deltas(session_id)
        if target is Target.WORKSPACES:
            async for sessions in self._ended_sessions():
                asked = await self._in_bucket(sessions)
                there = [one for one in sessions if await self._has_files(one, ask=one in asked)]
                self._add("workspaces", len(there))

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

    async def _count_deltas(self, session_id: UUID) -> None:
        async with self._tools.database.tenant(self._caller.tenant, read=True) as tx:
            self._add("deltas", await store.count_deltas(tx, self._organization_id, session_id, DELTAS))

    async def _in_bucket(self, sessions: Sequence[UUID]) -> set[UUID]:
        """Those whose files may be in a bucket: each request to it costs time and money."""
        if self._tools.bucket is None:
            return set()
        async with self._tools.database.tenant(self._caller.tenant, read=True) as tx:
            return await file_store.may_have_files(tx, self._organization_id, sessions)

    async def _has_files(self, session_id: UUID, *, ask: bool) -> bool:
        bucket = self._tools.bucket
        if bucket is None:
            return self._tools.sessions.path(session_id).is_dir()
        home = Home(self._organization_id, session_id)
        return ask and bool((await bucket.list(home, (), recursive=True, after="", limit=1)).found)

    async def _remove_files(self, session_id: UUID, *, ask: bool) -> bool:
        tools = self._tools
        there = await tools.pools.blocking(remove_tree, tools.sessions.path(session_id), timeout=_LIMIT)
        if tools.bucket is None:
            return there
        return ask and await tools.bucket.clear(Home(self._organization_id, session_id))

    async def _executions(self) -> AsyncGenerator[None, None]:
        async with aclosing(self._forgetting.forget()) as steps:
            async for step in steps:
                for what, count in step.items():
                    self._add(what, count)
                yield

    async def _workspaces(self) -> AsyncGenerator[None, None]:
        async for sessions in self._ended_sessions():
            asked = await self._in_bucket(sessions)
            removed = [one for one in sessions if await self._remove_files(one, ask=one in asked)]
            if removed:
                async with self._tools.database.system() as tx:
                    await file_store.emptied(tx, self._organization_id, removed)
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
                total += await self._log.compact(tx, organization_id, session_id, start, end, DELTAS)
                tx.audited = True  # for the whole batch, afterwards: they say nothing that messages do not
        self._add("deltas", total)
        return total

    async def _request_ids(self) -> AsyncGenerator[None, None]:
        deleted = _ROWS
        while deleted == _ROWS:
            async with self._tools.database.system() as tx:
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
