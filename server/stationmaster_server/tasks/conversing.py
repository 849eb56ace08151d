"""What an attempt has to do with the session that it runs in."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import LeaseLost
from stationmaster_server.tasks import attempt_store, execution_store
from stationmaster_server.tasks.attempt_store import Stored
from stationmaster_server.tasks.leaving import leave_session
from stationmaster_server.tasks.model import RanIn
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.work import leases
from stationmaster_server.work.run import Run


class RunningConversation:
    """Implements `kinds.base.Conversation`."""

    def __init__(self, services: TaskServices, run: Run, stored: Stored, caller: Caller) -> None:
        self._services = services
        self._run = run
        self._caller = caller
        self._id = stored.conversation_id
        self._ran_in = stored.ran_in

    @property
    def id(self) -> UUID:
        """Another one when it was left."""
        return self._id

    async def open(self, tx: Transaction, session_id: UUID, *, keep: bool) -> None:
        """The session is being made. Raises LeaseLost."""
        await self._write(tx, RanIn(session_id, None, keep))

    async def begin(self, tx: Transaction, turn_id: UUID) -> None:
        """The turn is being begun. Raises LeaseLost."""
        await self._write(tx, replace(self._ran_in, turn_id=turn_id))

    async def leave(self, why: str) -> None:
        """End the session, unless it is kept. Raises LeaseLost."""
        item = self._run.item
        async with self._services.database.system() as tx:
            await leases.hold(tx, self._run)
            await leave_session(tx, self._services, self._caller, self._ran_in, why)
            left = await execution_store.leave(tx, item.organization_id, item.item_id)
            if left is None:
                raise LeaseLost(f"execution {item.item_id} is gone")
        self._id, self._ran_in = left, replace(self._ran_in, turn_id=None)

    async def _write(self, tx: Transaction, ran_in: RanIn) -> None:
        """Whoever lost the execution makes nothing for it any more."""
        item = self._run.item
        await leases.hold(tx, self._run)
        await attempt_store.set_ran_in(tx, item.organization_id, item.item_id, ran_in)
        tx.after_commit(lambda: self._now(ran_in))

    def _now(self, ran_in: RanIn) -> None:
        self._ran_in = ran_in
