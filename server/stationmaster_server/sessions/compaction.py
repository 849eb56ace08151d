"""Deletes the deltas of turns that ended some time ago: the messages say the same, and name what they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.db.engine import Database
from stationmaster_server.events.log import EventLog
from stationmaster_server.sessions import sweep_store
from stationmaster_server.sessions.events import DELTAS

_BATCH = 50
"""Turns of one transaction."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """How much was done."""

    turns: int
    deltas: int


class Compaction:
    """Works on every server at once; turns that another has locked are left to it."""

    def __init__(self, database: Database, log: EventLog) -> None:
        self._database = database
        self._log = log

    async def compact(self, older_than: timedelta) -> Compacted:
        """Compact all turns that ended longer ago."""
        turns = deltas = 0
        while True:
            done, deleted = await self._batch(older_than)
            turns, deltas = turns + done, deltas + deleted
            if done < _BATCH:
                return Compacted(turns, deltas)

    async def _batch(self, older_than: timedelta) -> tuple[int, int]:
        async with self._database.system() as tx:
            replaced = await sweep_store.lock_to_compact(tx, older_than, _BATCH)
            deleted = 0
            for one in replaced:
                if one.last:
                    deleted += await self._log.compact(
                        tx, one.organization_id, one.session_id, one.first, one.last, DELTAS
                    )
            turns = list(dict.fromkeys((one.organization_id, one.turn_id) for one in replaced))
            await sweep_store.compacted(tx, turns)
        return len(turns), deleted
