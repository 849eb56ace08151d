"""Brings a target to where its source is: from its cursor on, or from nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Unavailable
from stationmaster_server.tasks.sync import source, store
from stationmaster_server.tasks.sync.model import NOTHING, Cursor, Key
from stationmaster_server.tasks.sync.target import Target, TargetHeld

_TELL_AGAIN = 20.0
"""Seconds after which it is told again that a target is kept in step, though nothing changed."""

_log = structlog.get_logger(__name__)


class Sync:
    """One target of a service. A crash at any point is made up for by the next run: cursors tell what is certain."""

    def __init__(self, database: Database, service_id: str, target: Target, *, in_database: bool = False) -> None:
        """`in_database`: the target keeps its cursor in `sync_cursors` itself."""
        self.target = target
        self.batch_size = 200
        self._database = database
        self._service_id = service_id
        self._in_database = in_database
        self._turn = asyncio.Lock()
        self._told: tuple[Cursor, float] | None = None

    async def run(self) -> int:
        """Apply all changes that there are; tells how many tasks were written. Raises TargetAway."""
        async with self._turn, self._seen():
            if not await self.target.open():
                return 0
            written = 0
            while (cursor := await self._begin()).filling is not None:
                written += await self._fill(cursor)
            return written + await self._follow(cursor)

    async def _begin(self) -> Cursor:
        """Where to go on: from nothing if the target is not of this source, or changes after its cursor are gone."""
        old = await self.target.cursor()
        async with self._database.system(autocommit=True) as tx:
            at = await store.begin(tx, self._service_id, self.target.about, in_database=self._in_database)
        if old is not None and old.source == at.source and at.forgotten <= old.position <= at.settled:
            return old
        _log.info("a target is filled from nothing", service=self._service_id, place=self.target.place, had=str(old))
        cursor = Cursor(at.source, at.settled, NOTHING)
        await self._tell(cursor)
        await self.target.reset(cursor)
        return cursor

    async def _follow(self, cursor: Cursor) -> int:
        written, all_of_them, about = 0, False, self.target.about
        while not all_of_them:
            async with self._database.system(autocommit=True) as tx:
                keys, position, all_of_them = await store.changes_after(tx, cursor.position, about, self.batch_size)
                states = await source.read(tx, keys, about)
            if keys:
                cursor = cursor._replace(position=position)
                await self.target.apply(states, cursor)
                written += len(keys)
            await self._tell(cursor)
        return written

    async def _fill(self, cursor: Cursor) -> int:
        """The tasks that are still to come. What changes meanwhile comes after the position, which was taken before."""
        written = 0
        while cursor.filling is not None:
            await self._tell(cursor)
            async with self._database.system(autocommit=True) as tx:
                keys = await store.keys_after(tx, cursor.filling, self.batch_size)
                states = await source.read(tx, keys, self.target.about)
            cursor = cursor._replace(filling=keys[-1] if keys else None)
            await self.target.apply(states, cursor)
            written += len(keys)
        return written

    async def _tell(self, cursor: Cursor) -> None:
        """How far it is; of one that is being filled, what must not be forgotten until it is."""
        now = time.monotonic()
        if self._told is not None and self._told[0] == cursor and now - self._told[1] < _TELL_AGAIN:
            return
        async with self._database.system(autocommit=True) as tx:
            if self._in_database:  # it is written with the contents, and in no other way
                await store.saw(tx, self._service_id, self.target.place)
            else:
                await store.put_cursor(tx, self._service_id, self.target.place, self.target.about, cursor)
        self._told = (cursor, now)

    @asynccontextmanager
    async def _seen(self) -> AsyncIterator[None]:
        """Meanwhile, however long the target takes, it is told that somebody is at work."""

        async def see() -> None:
            while True:
                await asyncio.sleep(_TELL_AGAIN)
                with suppress(Unavailable):
                    async with self._database.system(autocommit=True) as tx:
                        await store.saw(tx, self._service_id, self.target.place)

        seeing = asyncio.create_task(see(), name=f"sight of {self._service_id}")
        try:
            yield
        finally:
            seeing.cancel()
            await asyncio.gather(seeing, return_exceptions=True)

    async def close(self) -> None:
        """Let go of the target."""
        async with self._turn:
            await self.target.close()

    async def differences(self) -> list[Key]:
        """Tasks of which the target holds something else than it should, while nothing changes.

        Raises TargetAway, TargetHeld.
        """
        async with self._turn:
            if not await self.target.open():
                raise TargetHeld(f"another process holds {self.target.place}, and alone can look into it")
            off = {key async for keys in self._off() for key in keys}
        return sorted(off)

    async def _off(self) -> AsyncIterator[Sequence[Key]]:
        """A batch at a time: the tasks that there are, by what the target holds of them; then what it holds besides.

        Each side goes in its own order, since not every target can go in that of the database.
        """
        keys: list[Key] = [NOTHING]
        while keys:
            async with self._database.system(autocommit=True) as tx:
                keys = await store.keys_after(tx, keys[-1], self.batch_size)
                states = await source.read(tx, keys, self.target.about)
            yield await self.target.differing(states)
        async for held in self.target.keys(self.batch_size):
            async with self._database.system(autocommit=True) as tx:
                strays = await store.no_tasks(tx, held)
            yield strays
