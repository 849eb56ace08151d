"""What the modules of the room share: built once by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.embedder import Embedder
from stationmaster_server.events.log import EventLog
from stationmaster_server.storage.reports import Reports
from stationmaster_server.tasks.filling import Filling
from stationmaster_server.tasks.kinds.registry import Kinds
from stationmaster_server.tasks.sync.changed import Poke, nobody
from stationmaster_server.tasks.sync.refusals import Refusals
from stationmaster_server.work.queue import WorkQueue


class Sessions(Protocol):
    """What the room needs of sessions; `sessions.service.SessionService` is the one there is."""

    async def end(self, tx: Transaction, caller: Caller, session_id: UUID, reason: str) -> None:
        """Terminate a session, if it has not ended, in the caller's transaction."""
        ...

    async def stop_turn(self, tx: Transaction, caller: Caller, session_id: UUID, turn_id: UUID, reason: str) -> None:
        """Cancel a turn, if it has not ended, in the caller's transaction."""
        ...


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
    sessions: Sessions
    reports: Reports
    now: Callable[[], datetime] = utc_now
    """The clock of schedules, in UTC."""
    changed: Poke = nobody
    """To be called after the commit of a change of tasks; see `sync.changed.tell`."""
    refusals: Refusals = field(default_factory=Refusals)
