"""The levels that new edges are judged by, as a target: looked at after each change, made anew where they are off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks import dependency_store
from stationmaster_server.tasks.sync import index_store, store
from stationmaster_server.tasks.sync.model import NOTHING, About, Cursor, Key, TaskState

_log = structlog.get_logger(__name__)


class GraphIndex:
    """`task_levels`, which every change of an edge keeps exact in its own transaction; this proves it."""

    place = "PostgreSQL"
    about = (About.TASK, About.EDGE)

    def __init__(self, database: Database, service_id: str) -> None:
        self._database = database
        self._service_id = service_id

    async def open(self) -> bool:
        """Always."""
        return True

    async def close(self) -> None:
        """Nothing to let go of."""

    async def cursor(self) -> Cursor | None:
        """As it was written with the levels."""
        async with self._database.system(autocommit=True) as tx:
            return await store.cursor_of(tx, self._service_id, self.place)

    async def apply(self, states: Sequence[TaskState], cursor: Cursor) -> None:
        """Look at the levels of these tasks; an organization where one is off gets all of its levels anew."""
        keys = [state.key for state in states]
        async with self._database.system(autocommit=True) as tx:
            suspects = sorted({key.organization_id for key in await index_store.off_level(tx, keys)})
        async with self._database.system() as tx:
            for organization_id in suspects:
                await dependency_store.lock_graph(tx, organization_id)  # one under way may have been seen half
                here = [key for key in keys if key.organization_id == organization_id]
                if await index_store.off_level(tx, here):
                    await _rebuild(tx, organization_id)
            await store.put_cursor(tx, self._service_id, self.place, self.about, cursor)

    async def reset(self, cursor: Cursor) -> None:
        """Have every level proven, of which those of what is no task cannot be."""
        async with self._database.system() as tx:
            await index_store.drop_stray_levels(tx)
            await store.put_cursor(tx, self._service_id, self.place, self.about, cursor)

    async def differing(self, states: Sequence[TaskState]) -> Sequence[Key]:
        """Those whose level is not one above the highest that they depend on: if there are none, all are exact."""
        async with self._database.system(autocommit=True) as tx:
            return await index_store.off_level(tx, [state.key for state in states])

    async def keys(self, at_once: int) -> AsyncIterator[Sequence[Key]]:
        """Of each level but 0."""
        keys: list[Key] = [NOTHING]
        while keys:
            async with self._database.system(autocommit=True) as tx:
                keys = await index_store.levels_after(tx, keys[-1], at_once)
            yield keys

    async def skipped(self) -> Mapping[Key, str]:
        """Nothing."""
        return {}


async def _rebuild(tx: Transaction, organization_id: UUID) -> None:
    """Of one organization with a cycle nothing can be proven, which must not hold up the others."""
    organization = str(organization_id)
    _log.warning("levels of tasks are made anew", organization=organization)
    if not await index_store.rebuild_levels(tx, organization_id):
        _log.error("dependencies of tasks have a cycle, which dependency-cycles names", organization=organization)
