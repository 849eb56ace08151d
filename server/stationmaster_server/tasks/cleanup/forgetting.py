"""Forgetting executions that ended long ago, with all that they left: one rule for the background and clean-ups."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import StationmasterError, Unavailable
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.system import system_caller
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.sessions.workspaces import Workspaces
from stationmaster_server.storage.places.place import Place
from stationmaster_server.storage.workspace import Workspace
from stationmaster_server.tasks.cleanup import forgetting_store
from stationmaster_server.tasks.cleanup.forgetting_store import BEGINNING, Gone, Left
from stationmaster_server.tasks.model import execution_name
from stationmaster_server.tasks.workspaces import ExecutionWorkspaces, exports_folder

logger = logging.getLogger(__name__)

BATCH = 50
"""Executions at once."""
_ROWS = 5_000
"""Rows that one transaction deletes."""
_LIMIT = timedelta(minutes=10)
"""To remove one folder."""
_CLAIM = timedelta(hours=1)
"""What an interrupted one left is dealt with by the next that comes so much later."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What it works with."""

    database: Database
    audit: AuditLog
    pools: Pools
    sessions: Workspaces
    executions: ExecutionWorkspaces
    bucket: Place | None = None
    """Where workspaces of sessions are, when they are no folders of this host."""


class Forgetting:
    """Forgets executions of one organization that ended before a time and that nobody needs.

    They vanish with one transaction, which notes what is still to be removed: events and pages in pieces, files, and
    the stream's row last, which keeps their ids taken until then.
    """

    def __init__(self, tools: Tools, organization_id: UUID, before: datetime, by: Caller | None = None) -> None:
        """`by`: whose word it is; None: the system's, which tells each owner's executions apart."""
        self._tools = tools
        self._database = tools.database
        self._organization_id = organization_id
        self._before = before
        self._by = by

    async def count(self) -> int:
        """How many there are."""
        async with self._database.system(autocommit=True) as tx:
            return await forgetting_store.count(tx, self._organization_id, self._before)

    async def forget(self) -> AsyncGenerator[Counter[str], None]:
        """Forget them; yields, after each step, how much of what it deleted."""
        while left := await self._claimed():
            async for step in self._remove(left):
                yield step
        after = BEGINNING
        while True:
            async with self._database.system(autocommit=True) as tx:
                old = await forgetting_store.old(tx, self._organization_id, self._before, after, BATCH)
            if not old:
                return
            after = old[-1]
            async with self._database.system() as tx:
                ids = [one.id for one in old]
                gone = await forgetting_store.delete(tx, self._organization_id, self._before, ids)
                await self._tell(tx, gone)
            yield Counter(executions=len(gone), reports=sum(one.reports for one in gone))
            async for step in self._remove([one.left for one in gone]):
                yield step

    async def _claimed(self) -> list[Left]:
        async with self._database.system() as tx:
            return await forgetting_store.claim(tx, self._organization_id, _CLAIM, BATCH)

    async def _remove(self, left: Sequence[Left]) -> AsyncGenerator[Counter[str], None]:
        """Remove what executions left that are gone."""
        ids = [one.id for one in left]
        for what, delete in (
            ("events", forgetting_store.delete_events),
            ("crawl_pages", forgetting_store.delete_pages),
        ):
            deleted = _ROWS
            while deleted == _ROWS:
                async with self._database.system() as tx:
                    deleted = await delete(tx, self._organization_id, ids, _ROWS)
                yield Counter({what: deleted})
        removed, done = 0, []
        for one in left:
            try:
                removed += await self._remove_files(one)
            except OSError:
                # Its note stays: it is tried again later.
                logger.exception("files of %s, which is forgotten, cannot be removed", execution_name(one.id))
            else:
                done.append(one.id)
        yield Counter(workspaces=removed)
        async with self._database.system() as tx:
            await forgetting_store.finish(tx, self._organization_id, done)

    async def _remove_files(self, one: Left) -> int:
        """Remove the files that it wrote; returns from how many workspaces."""
        tools, removed = self._tools, 0
        if one.session_id is not None:
            workspace = Workspace(tools.sessions.path(one.session_id))
            folder = exports_folder(one.id)
            removed += await tools.pools.blocking(workspace.remove_folder, folder, timeout=_LIMIT)
        removed += await tools.pools.blocking(tools.executions.remove, self._organization_id, one.id, timeout=_LIMIT)
        return removed

    async def _tell(self, tx: Transaction, gone: Sequence[Gone]) -> None:
        told = defaultdict[Caller, list[Gone]](list)
        for one in gone:
            told[self._by or system_caller(self._organization_id, one.user_id, request_id="retention")].append(one)
        category = Category.BUSINESS if self._by else Category.SYSTEM
        for caller, those in told.items():
            details = {
                "count": len(those),
                "reports": sum(one.reports for one in those),
                "executions": [execution_name(one.left.id) for one in those],
            }
            entry = AuditEntry("execution.delete", "executions", category=category, details=details)
            await self._tools.audit.write(tx, caller, entry)


async def forget_ended(tools: Tools, keep: timedelta) -> None:
    """Forget the executions of all organizations that ended longer ago than `keep`. Safe on every server at once."""
    async with tools.database.system(autocommit=True) as tx:
        before, organizations = await forgetting_store.organizations(tx, keep)
    for organization_id in organizations:
        try:
            async with aclosing(Forgetting(tools, organization_id, before).forget()) as steps:
                async for _ in steps:
                    pass
        except Unavailable:
            raise
        except StationmasterError as error:
            # The next hour does what is left; other organizations need not wait for it.
            logger.warning("executions of organization %s cannot be forgotten: %s", organization_id, error)
