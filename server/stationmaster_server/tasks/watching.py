"""What readers of an execution's stream get."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.events.log import EventLog
from stationmaster_server.events.model import Batch, Event
from stationmaster_server.identity.model import owner_scope
from stationmaster_server.tasks import execution_store
from stationmaster_server.tasks.events import STATE_CHANGED
from stationmaster_server.tasks.execution_store import Standing
from stationmaster_server.tasks.model import FINAL


class Watching:
    """Follows streams of executions."""

    def __init__(self, database: Database, log: EventLog) -> None:
        self._database = database
        self._log = log

    async def watch(self, caller: Caller, execution_id: UUID, after: int) -> AsyncGenerator[Batch, None]:
        """The execution's events after a sequence, then live, to its end; empty batches are keepalives.

        Raises NotFound, InvalidArgument for a cursor past the end, Unavailable when the server stops.
        """
        now = await self._standing(caller, execution_id)
        position = after
        ended = now.state in FINAL and after == now.last_sequence
        if ended and await self._is_over(caller, execution_id, position):
            return
        async with aclosing(self._log.watch(caller.tenant, execution_id, after)) as batches:
            async for batch in batches:
                yield batch
                position = max(position, batch.last_sequence)
                final = any(_is_final(event) for event in batch.events)
                # One that was retried goes on after an end.
                if (final or not batch.events) and await self._is_over(caller, execution_id, position):
                    return
        raise Unavailable(
            Reason.SERVER_STOPPING, "the server is stopping; go on with WatchExecution after the last sequence received"
        )

    async def _is_over(self, caller: Caller, execution_id: UUID, position: int) -> bool:
        """Its end has been told of, and everything was delivered."""
        now = await self._standing(caller, execution_id)
        if now.state not in FINAL or now.last_sequence > position:
            return False
        newest = await self._log.read(caller.tenant, execution_id, max(position - 1, 0), 1)
        return bool(newest) and _is_final(newest[-1])

    async def _standing(self, caller: Caller, execution_id: UUID) -> Standing:
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await execution_store.standing(tx, caller.tenant.organization_id, execution_id, owner_scope(caller))


def _is_final(event: Event) -> bool:
    return event.kind == STATE_CHANGED and event.body["state"] in FINAL
