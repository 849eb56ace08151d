"""Events of users' own."""

from __future__ import annotations

from stationmaster_server.audit import store
from stationmaster_server.audit.model import AuditEntry, AuditEvent
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.identity.model import Caller


class Recording:
    """Writes what users want to have in the trail."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database = database
        self._audit = audit

    async def record(self, caller: Caller, entry: AuditEntry) -> AuditEvent:
        """Write an event; a repeat of the request returns the first one. Its place is given within about a second."""
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            recorded = await recall(tx, tenant, caller.request_key, AuditEvent)
            if recorded is not None:
                return recorded
            event_id = await self._audit.write(tx, caller, entry)
            event = await store.get_written(tx, tenant.organization_id, event_id)
            await remember(tx, tenant, caller.request_key, event)
            return event
