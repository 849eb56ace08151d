"""What happened, counted."""

from __future__ import annotations

from datetime import datetime, timedelta

from stationmaster_server.audit import stats_store
from stationmaster_server.audit.model import AuditStats
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.identity.model import Caller

LONGEST = timedelta(days=366)


class Counting:
    """Counts an organization's events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stats(self, caller: Caller, start: datetime, end: datetime) -> AuditStats:
        """The events from `start` up to `end`, by what they have in common. Raises InvalidArgument."""
        if not timedelta() < end - start <= LONGEST:
            raise InvalidArgument.field("end_time", f"must be after start_time, by {LONGEST.days} days at most")
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await stats_store.stats(tx, caller.tenant.organization_id, start, end)
