"""Telling people of what is wrong with a background service, and that it is over: log, audit trail, webhook."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import StationmasterError
from stationmaster_server.identity import store as identity
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.system import system_caller
from stationmaster_server.maintenance.alert_webhook import work_for
from stationmaster_server.maintenance.base import BackgroundService
from stationmaster_server.maintenance.model import Fault, Figures, service_name
from stationmaster_server.work.queue import WorkQueue

UNHEALTHY, RECOVERED = "background_service.unhealthy", "background_service.recovered"
_log = structlog.get_logger(__name__)


class Alarms:
    """Writes an audit event for those who operate the installation and, with it, has the receiver of alerts told."""

    def __init__(self, database: Database, audit: AuditLog, queue: WorkQueue, *, webhook: bool = False) -> None:
        """`webhook`: there is a receiver."""
        self._database = database
        self._audit = audit
        self._queue = queue
        self._webhook = webhook

    async def tell(self, service: BackgroundService[Any], figures: Figures, fault: Fault | None) -> None:
        """Tell of a fault of a service, or that it has none any more. While the database is away the log alone does."""
        name, in_a_row = service_name(service.service_id), figures.failures_in_a_row
        if fault:
            text = "a background service needs somebody"
            _log.error(text, service=name, in_a_row=in_a_row, fault=fault.kind, text=fault.text)
        else:
            _log.info("a background service is well again", service=name)
        data = {"service": name, "failures_in_a_row": in_a_row}
        if fault:
            data |= {"fault": fault.kind, "text": fault.text}
        try:
            await self._write(UNHEALTHY if fault else RECOVERED, name, data)
        except StationmasterError as error:
            _log.warning("an alert is in the log alone", service=name, error=str(error))

    async def _write(self, action: str, name: str, data: dict[str, Any]) -> None:
        """To the oldest owner's organization: that of whoever set the installation up."""
        async with self._database.system() as tx:
            owner = await identity.oldest_owner(tx)
            if owner is None:
                return
            entry = AuditEntry(action, name, category=Category.SYSTEM, details=data)
            await self._audit.write(tx, system_caller(owner.organization_id, owner.id), entry)
            if self._webhook:
                body = {"type": action, "timestamp": datetime.now(UTC).isoformat(), "data": data}
                await self._queue.submit(tx, work_for(owner.organization_id, owner.id, body))
