"""Pauses sessions that nobody has used for their time to live."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.system import system_caller
from stationmaster_server.sessions import sweep_store
from stationmaster_server.sessions.model import Session, SessionState, session_name, transition
from stationmaster_server.sessions.service import change_state
from stationmaster_server.sessions.turn_services import TurnServices

REASON = "idle"
BATCH = 100


class IdleSessions:
    """Looks on every server; rows that another server has locked are left to it."""

    def __init__(self, services: TurnServices, *, default_timeout: timedelta | None) -> None:
        self._services = services
        self._default_timeout = default_timeout

    async def pause_idle(self) -> int:
        """Pause all that are idle now; returns how many."""
        total = 0
        while True:
            async with self._services.database.system() as tx:
                idle = await sweep_store.lock_idle(tx, self._default_timeout, BATCH)
                for organization_id, session in idle:
                    await self._pause(tx, organization_id, session)
            total += len(idle)
            if len(idle) < BATCH:
                return total

    async def _pause(self, tx: Transaction, organization_id: UUID, session: Session) -> None:
        name = session_name(session.id)
        paused = transition(name, session.state, SessionState.PAUSED)
        await change_state(tx, self._services, session, organization_id, paused, REASON)
        caller = system_caller(organization_id, session.user_id, request_id=f"idle-{session.id}")
        entry = AuditEntry("session.pause", name, category=Category.SYSTEM, reason=REASON)
        await self._services.audit.write(tx, caller, entry)
