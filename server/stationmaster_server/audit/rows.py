"""What is written of an event: the entry, and who did it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from stationmaster_server.audit.details import clean, clean_text
from stationmaster_server.db.ids import new_id
from stationmaster_server.identity.model import AuditEntry, Caller

SYSTEM = "system"
# Ids that callers make up may carry times that no calendar has.
_LATEST_MS = 253_000_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A row of `audit_events`, in the order of its columns."""

    organization_id: UUID
    created_at: datetime
    id: UUID
    category: str
    action: str
    outcome: str
    actor: str
    on_behalf_of: str
    api_key: str
    method: str
    resource: str
    reason: str
    request_id: str
    peer: str
    details: dict[str, Any]


def make_row(caller: Caller, entry: AuditEntry, organization_id: UUID | None = None) -> Row:
    """The row of an entry, with an id of its own. What others than the server itself wrote is cleaned."""
    user = f"users/{caller.tenant.user_id}"
    by_system = caller.subject == SYSTEM
    event_id = new_id()
    return Row(
        organization_id or caller.tenant.organization_id,
        created_at(event_id),
        event_id,
        entry.category.value,
        entry.action,
        entry.outcome.value,
        SYSTEM if by_system else user,
        entry.on_behalf_of or (user if by_system else ""),
        "" if caller.key_id is None else f"apiKeys/{caller.key_id}",
        caller.method,
        clean_text(entry.resource, 500),
        clean_text(entry.reason),
        clean_text(caller.request_id, 200),
        caller.peer,
        clean(entry.details),
    )


def created_at(event_id: UUID) -> datetime:
    """The time that an event's id carries: its `created_at`, by which it is found; of no id of ours, some late time."""
    return _EPOCH + timedelta(milliseconds=min(event_id.int >> 80, _LATEST_MS))
