"""What the modules of the room share: built once by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.embedder import Embedder
from stationmaster_server.events.log import EventLog
from stationmaster_server.tasks.filling import Filling
from stationmaster_server.tasks.kinds.registry import Kinds
from stationmaster_server.work.queue import WorkQueue

EndSession = Callable[[Transaction, Caller, UUID, str], Awaitable[None]]


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class TaskServices:
    """The engines that tasks stand on."""

    database: Database
    log: EventLog
    queue: WorkQueue
    audit: AuditLog
    kinds: Kinds
    filling: Filling
    embedder: Embedder
    end_session: EndSession
    now: Callable[[], datetime] = utc_now
    """The clock of schedules, in UTC."""
