"""What readers of a session's stream get: all of it, or one turn of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import InvalidArgument, Reason, Unavailable
from stationmaster_server.events.log import EventLog
from stationmaster_server.events.model import Batch, Event
from stationmaster_server.sessions import store
from stationmaster_server.sessions.model import ENDED, Session, owner_scope
from stationmaster_server.sessions.turns import Started


class Watching:
    """Follows streams. A reader that is slow reads the log: it costs the server nothing and loses nothing."""

    def __init__(self, database: Database, log: EventLog, *, keepalive: timedelta = timedelta(seconds=15)) -> None:
        self._database = database
        self._log = log
        self._keepalive = keepalive.total_seconds()

    async def watch(self, caller: Caller, session_id: UUID, after: int) -> AsyncGenerator[Batch, None]:
        """The session's events after a sequence, then live, to the end of the session; empty batches are keepalives.

        Raises NotFound, InvalidArgument for a cursor past the end, Unavailable when the server stops.
        """
        session = await self._session(caller, session_id)
        if after > session.last_sequence and session.state in ENDED:  # of one that goes on, the log refuses it
            raise InvalidArgument.field("after_sequence", f"the stream ends at {session.last_sequence}")
        ended, position = session.state in ENDED, after
        if ended and _all_delivered(session, position):
            return
        async with aclosing(self._log.watch(caller.tenant, session_id, after)) as batches:
            async for batch in batches:
                yield batch
                position = max(position, batch.last_sequence)
                ended = ended or any(_ends_session(event) for event in batch.events)
                if ended and _all_delivered(await self._session(caller, session_id), position):
                    return
        raise _stopping()

    async def follow(
        self, caller: Caller, session_id: UUID, started: Started, *, stop_at_permission: bool = False
    ) -> AsyncGenerator[Batch, None]:
        """The events of a turn that the caller has started, to its end; empty batches are keepalives.

        With `stop_at_permission` it ends once a permission is asked for. Raises Unavailable when the server stops.
        """
        turn = str(started.turn_id)
        clock = asyncio.get_running_loop().time
        silent_until = clock() + self._keepalive
        last = ("turn_finished", "permission_requested") if stop_at_permission else ("turn_finished",)
        async with aclosing(self._log.watch(caller.tenant, session_id, started.after_sequence)) as batches:
            async for batch in batches:
                events = [event for event in batch.events if event.body.get("turn") == turn]
                if events or not batch.events or clock() >= silent_until:
                    yield Batch(events, batch.last_sequence)
                    silent_until = clock() + self._keepalive
                if any(event.kind in last for event in events):
                    return
        raise _stopping()

    async def _session(self, caller: Caller, session_id: UUID) -> Session:
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await store.get_session(tx, caller.tenant.organization_id, session_id, owner_scope(caller))


def _ends_session(event: Event) -> bool:
    return event.kind == "session_state_changed" and event.body["to_state"] in ENDED


def _all_delivered(session: Session, position: int) -> bool:
    """Nothing more will come: the last turn has ended as well, and its events have been sent."""
    return session.current_turn_id is None and session.last_sequence <= position


def _stopping() -> Unavailable:
    return Unavailable(
        Reason.SERVER_STOPPING, "the server is stopping; go on with WatchSession after the last sequence received"
    )
