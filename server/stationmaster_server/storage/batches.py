"""Makes many changes of one workspace that were decided at once, under one lease, some side by side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import StationmasterError, Unavailable
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.identity.system import system_caller
from stationmaster_server.storage import batch_store, file_store
from stationmaster_server.storage.batch_store import Batch, Outcome
from stationmaster_server.storage.beating import beating
from stationmaster_server.storage.changes import Changes
from stationmaster_server.storage.file_model import Change, file_name, workspace_name
from stationmaster_server.storage.places.place import Home, Published
from stationmaster_server.storage.places.threads import AT_ONCE, together

logger = logging.getLogger(__name__)

_HEARTBEAT = file_store.LEASE.total_seconds() / 4
_PAUSE = timedelta(milliseconds=100)
_PAGE = 1024


@dataclass(frozen=True, slots=True)
class _Made:
    """What has become of a change: what came to its place, or why nothing did."""

    published: Published | None = None
    error: StationmasterError | OSError | None = None


class Batches:
    """Makes batches, and what servers that died left of them."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes
        self._left: asyncio.Task[None] | None = None

    async def make(self, caller: Caller, batch: Batch, changes: Sequence[Change], entry: AuditEntry) -> Outcome:
        """Make a batch that is decided; one event tells of all. It is made whether or not the caller waits.

        Raises Unavailable: what is left is made when the place is back.
        """
        task = asyncio.create_task(self._make(caller, batch, changes, entry), name=f"{len(changes)} file changes")
        self._changes.keep(task)
        outcome = await asyncio.shield(task)
        return await self.outcome(batch.home, batch.id) if outcome.left else outcome

    async def outcome(self, home: Home, batch_id: UUID) -> Outcome:
        """What has become of a batch, once nothing of it is left."""
        while True:
            async with self._database.system(autocommit=True) as tx:
                outcome = await batch_store.outcome(tx, home, batch_id)
            if not outcome.left:
                return outcome
            await asyncio.sleep(_PAUSE.total_seconds())

    async def make_left(self) -> None:
        """Begin to make what a server that died has left, one batch at a time."""
        async with self._database.system(autocommit=True) as tx:
            await batch_store.release_left(tx)
        if self._left is not None and not self._left.done():
            return
        async with self._database.system(autocommit=True) as tx:
            batch = await batch_store.take_left(tx)
        if batch is not None:
            self._left = asyncio.create_task(self._make_left(batch), name=f"what is left of batch {batch.id}")
            self._changes.keep(self._left)

    @asynccontextmanager
    async def leased(self, batch: Batch, lease: timedelta, *, decided: bool) -> AsyncIterator[None]:
        """Says again and again that a batch goes on, while it does."""

        async def extend() -> None:
            async with self._database.system(autocommit=True) as tx:
                await batch_store.extend(tx, batch, lease, decided=decided)

        every = _HEARTBEAT if decided else lease.total_seconds() / 4
        async with beating(f"the lease of batch {batch.id}", every, extend):
            yield

    async def _make(self, caller: Caller, batch: Batch, changes: Sequence[Change], entry: AuditEntry) -> Outcome:
        async with self.leased(batch, file_store.LEASE, decided=True):
            made = await self._make_some(caller, changes, entry, again=False)
            outcome = await self._end(batch, made)
        for each in made if outcome.left else []:
            if isinstance(each.error, Unavailable):
                raise each.error
        return outcome

    async def _make_left(self, batch: Batch) -> None:
        caller = system_caller(batch.home.organization_id, batch.user_id, request_id="recovery")
        entry = AuditEntry("file.put", workspace_name(batch.home.session_id))
        made: list[_Made] = []
        last: UUID | None = None
        try:
            async with self.leased(batch, file_store.LEASE, decided=True):
                while True:
                    async with self._database.system(autocommit=True) as tx:
                        changes = await batch_store.changes(tx, batch, last, _PAGE)
                    if not changes:
                        break
                    made += await self._make_some(caller, changes, entry, again=True)
                    last = changes[-1].id
                await self._end(batch, made)
        except StationmasterError as error:
            logger.warning("what was left of batch %s could not be made: %s", batch.id, error)

    async def _make_some(
        self, caller: Caller, changes: Sequence[Change], entry: AuditEntry, *, again: bool
    ) -> list[_Made]:
        """What was not made as it should, or whose count is not known."""
        odd: list[_Made] = []
        for start in range(0, len(changes), AT_ONCE):
            some = changes[start : start + AT_ONCE]
            made = await together(self._make_one(caller, change, entry, again) for change in some)
            odd += [each for each in made if again or each.published is None or not each.published.known]
            async with self._database.system() as tx:
                for change, result in zip(some, made, strict=True):
                    if result.published is not None and await file_store.end(tx, change):
                        await self._changes.count(tx, change, result.published, None)
        return odd

    async def _make_one(self, caller: Caller, change: Change, entry: AuditEntry, again: bool) -> _Made:
        name = file_name(change.home.session_id, change.path)
        try:
            told_as = replace(entry, resource=name)
            return _Made(await self._changes.make_one(caller, change, told_as, again=again))
        except (StationmasterError, OSError) as error:
            return _Made(error=error)

    async def _end(self, batch: Batch, made: Sequence[_Made]) -> Outcome:
        async with self._database.system() as tx:
            if any(each.published is not None for each in made):  # what was there before is not known
                await file_store.measure_later(tx, batch.home, batch.user_id, timedelta(0))
            await batch_store.end(tx, batch)
            return await batch_store.outcome(tx, batch.home, batch.id)
