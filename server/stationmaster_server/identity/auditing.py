"""What identity needs of the audit trail, which is built above it."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity.model import AuditEntry, Caller


class AuditWriter(Protocol):
    """Writes the trail; `audit.service.AuditLog` is the one there is."""

    async def write(
        self, tx: Transaction, caller: Caller, entry: AuditEntry, *, organization_id: UUID | None = None
    ) -> UUID:
        """In the change's transaction, to the caller's organization unless another is named; returns the event's id."""
        ...

    async def write_refusal(self, caller: Caller, entry: AuditEntry) -> None:
        """By itself; committed when it returns."""
        ...
