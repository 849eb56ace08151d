"""Audit events, checkpoints and proofs as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
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


@dataclass(frozen=True, slots=True)
class LogKey:
    """A public key that checkpoints are, or were, signed with."""

    public_key: bytes
    created_at: datetime
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed tree head; `cosigned_*` are of the newest one that witnesses cosigned (0 and empty: none yet).

    `signed_at` is None for one that is not the newest.
    """

    size: int
    root: bytes
    note: str
    signed_at: datetime | None
    cosigned_size: int
    cosigned_note: str

    @property
    def best_note(self) -> str:
        """The checkpoint, with its cosignatures if it has any."""
        return self.cosigned_note if self.cosigned_size == self.size else self.note


@dataclass(frozen=True, slots=True)
class Leaf:
    """What an event's leaf is made of. `salt` and `body` are None once retention has deleted the event."""

    sequence: int
    event_id: UUID
    created_at: datetime
    commitment: bytes
    salt: bytes | None
    body: str | None


@dataclass(frozen=True, slots=True)
class Proof:
    """Hashes that prove something of the tree of `size`; `note` is the checkpoint of that size, if it is the newest."""

    size: int
    hashes: list[bytes]
    note: str


class ExportFormat(StrEnum):
    """How events are exported."""

    JSON_LINES = "JSON_LINES"
    CSV = "CSV"
    BUNDLE = "BUNDLE"


@dataclass(frozen=True, slots=True)
class Counted:
    """How many events have something in common."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class AuditStats:
    """What happened in a span of time, and how the tree stands."""

    total: int
    by_category: list[Counted]
    by_outcome: list[Counted]
    by_action: list[Counted]
    by_actor: list[Counted]
    tree_size: int
    checkpoint_size: int
    queued: int
    oldest: datetime | None
