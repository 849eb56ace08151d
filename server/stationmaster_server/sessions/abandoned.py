"""Turns that nobody will end: their work failed for good, or was ended behind their back. No session stays stuck."""

from __future__ import annotations

import logging
from uuid import UUID

from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import Reason
from stationmaster_server.identity.system import system_caller
from stationmaster_server.sessions import store, sweep_store, turn_store
from stationmaster_server.sessions.model import OPEN_TURNS, Ending, TurnState
from stationmaster_server.sessions.recovery import partial_answer
from stationmaster_server.sessions.turn_ending import asked_ending, end_turn
from stationmaster_server.sessions.turn_services import TurnServices

logger = logging.getLogger(__name__)

_BATCH = 100
_WHY = "the server could not run the turn; its log says why, under the id of the turn"


class AbandonedTurns:
    """Ends them as somebody asked, else as FAILED, with everything they brought. Safe on every server at once."""

    def __init__(self, services: TurnServices) -> None:
        self._services = services

    async def end_all(self) -> int:
        """One sweep; returns how many were ended."""
        async with self._services.database.system(autocommit=True) as tx:
            found = await sweep_store.abandoned(tx, _BATCH)
        ended = 0
        for tenant, session_id, turn_id in found:
            try:
                await self._end(tenant, session_id, turn_id)
                ended += 1
            except Exception:
                # One that cannot be ended must not hold up the others.
                logger.exception("turn %s, which nobody runs any more, could not be ended", turn_id)
        return ended

    async def _end(self, tenant: Tenant, session_id: UUID, turn_id: UUID) -> None:
        caller = system_caller(tenant.organization_id, tenant.user_id, request_id=f"turn-{turn_id}")
        async with self._services.database.tenant(tenant, read=True) as tx:
            turn = await turn_store.get_turn(tx, tenant.organization_id, session_id, turn_id)
        partial = await partial_answer(self._services.log, tenant, turn)
        async with self._services.database.tenant(tenant) as tx:
            session = await store.lock_session(tx, tenant.organization_id, session_id, None)
            turn = await turn_store.get_turn(tx, tenant.organization_id, session_id, turn_id)
            if turn.state not in OPEN_TURNS:
                tx.audited = True  # another server was faster, and told of it
                return
            asked = await asked_ending(tx, tenant.organization_id, turn_id)
            ending = asked or Ending(TurnState.FAILED, Reason.INTERNAL, _WHY)
            await end_turn(tx, self._services, caller, session, turn, ending, partial=partial)
