"""Reports on their way into storage and out of it: room `tasks` adds them, time takes them away."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason
from stationmaster_server.identity.model import AuditEntry, Caller, Category
from stationmaster_server.identity.system import system_caller
from stationmaster_server.storage import store
from stationmaster_server.storage.model import NewReport, StoredReport, report_name

_LONGEST_TITLE = 300
_BATCH = 100


class Reports:
    """Adds reports and removes old ones."""

    def __init__(self, database: Database, audit: AuditLog, *, max_bytes: int, retention: timedelta) -> None:
        self._database = database
        self._audit = audit
        self._max_bytes = max_bytes
        self._retention = retention

    async def add(self, tx: Transaction, caller: Caller, new: NewReport) -> StoredReport:
        """Store a report of an execution of the caller's, in the transaction that tells of the execution.

        It is rendered before the transaction begins, since that takes time. Raises FailedPrecondition(LIMIT_REACHED)
        for a report that is larger than `storage.max_report_bytes`.
        """
        size = len(new.data)
        if size > self._max_bytes:
            execution = f"executions/{new.execution_id}"
            raise FailedPrecondition(
                Reason.LIMIT_REACHED,
                f"the {new.format.name} report of {execution!r} has {size:,} bytes; {self._max_bytes:,} are allowed:"
                " ask for another format, or raise storage.max_report_bytes",
                PreconditionViolation("REPORT_SIZE", execution, f"at most {self._max_bytes} bytes"),
            )
        title = new.title.replace("\0", "")[:_LONGEST_TITLE]
        new = NewReport(new.execution_id, title, new.format, new.data)
        tenant = caller.tenant
        digest = hashlib.sha256(new.data).hexdigest()
        made = await store.insert(tx, tenant.organization_id, new_id(), tenant.user_id, new, digest)
        await self._audit.write(tx, caller, _entry("report.create", made))
        return made

    async def withdraw(self, tx: Transaction, caller: Caller, execution_id: UUID, reason: str) -> None:
        """Delete the reports of an execution, which tell of an end that it has no more."""
        for report in await store.delete_of(tx, caller.tenant.organization_id, [execution_id]):
            await self._audit.write(tx, caller, _entry("report.delete", report, reason=reason))

    async def remove_old(self) -> int:
        """Delete the reports that are past their time; returns how many."""
        total = 0
        while True:
            async with self._database.system() as tx:
                removed = await store.delete_old(tx, self._retention, _BATCH)
                for organization_id, report in removed:
                    caller = system_caller(organization_id, report.user_id)
                    await self._audit.write(tx, caller, _entry("report.delete", report, Category.SYSTEM))
            total += len(removed)
            if len(removed) < _BATCH:
                return total


def _entry(
    action: str, report: StoredReport, category: Category = Category.BUSINESS, *, reason: str = ""
) -> AuditEntry:
    details = {
        "execution": f"executions/{report.execution_id}",
        "format": report.format.name,
        "size_bytes": report.size_bytes,
        "sha256": report.sha256,
    }
    return AuditEntry(action, report_name(report.id), category=category, reason=reason, details=details)
