"""Audit events as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.identity.model import AuditEntry, Category, Outcome

__all__ = ["AuditEntry", "AuditEvent", "Category", "Outcome"]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One row of the trail. `sequence` is 0 until the sequencer has given it its place."""

    id: UUID
    organization_id: UUID
    created_at: datetime
    category: Category
    action: str
    outcome: Outcome
    actor: str
    on_behalf_of: str
    api_key: str
    method: str
    resource: str
    reason: str
    request_id: str
    peer: str
    details: dict[str, Any]
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class AuditBatch:
    """Some events of a watch, in order; none is a keepalive. `last_sequence` is the newest that was looked at."""

    events: list[AuditEvent]
    last_sequence: int
