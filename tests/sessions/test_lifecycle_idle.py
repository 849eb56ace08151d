"""Idle sessions are paused after their time to live, once, whichever server looks."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from stationmaster_server.db.caller import Caller
from stationmaster_server.sessions.idle import BATCH, IdleSessions
from stationmaster_server.sessions.model import NewSession, Session, SessionState

from tests.sessions.builders import SPEC
from tests.sessions.conftest import Rooms

HOUR = timedelta(hours=1)


async def idle_for(rooms: Rooms, caller: Caller, idle: timedelta, timeout: timedelta | None = None) -> Session:
    """A session that nobody has used for so long."""
    session = await rooms.sessions.create(caller, NewSession(spec=SPEC, idle_timeout=timeout))
    async with rooms.database.system() as tx:
        await tx.execute("UPDATE sessions SET updated_at = now() - $2::interval WHERE id = $1", session.id, idle)
    return session


async def state(rooms: Rooms, caller: Caller, session: Session) -> SessionState:
    return (await rooms.sessions.get(caller, session.id)).state


def cleanup(rooms: Rooms, default_timeout: timedelta | None = HOUR) -> IdleSessions:
    return IdleSessions(rooms.services, default_timeout=default_timeout)


async def test_a_session_is_paused_after_its_own_time_to_live_or_the_servers(rooms: Rooms, caller: Caller) -> None:
    used = await idle_for(rooms, caller, HOUR / 2)
    unused = await idle_for(rooms, caller, HOUR * 2)
    patient = await idle_for(rooms, caller, HOUR * 2, HOUR * 3)
    impatient = await idle_for(rooms, caller, HOUR / 2, HOUR / 4)

    assert await cleanup(rooms).pause_idle() == 2

    states = [await state(rooms, caller, each) for each in (used, unused, patient, impatient)]
    assert states == [SessionState.ACTIVE, SessionState.PAUSED, SessionState.ACTIVE, SessionState.PAUSED]


async def test_an_idle_session_says_why_it_is_paused_and_the_trail_names_the_system(
    rooms: Rooms, caller: Caller
) -> None:
    session = await idle_for(rooms, caller, HOUR * 2)

    await cleanup(rooms).pause_idle()

    (event,) = await rooms.services.log.read(caller.tenant, session.id, 1, 10)
    assert event.body == {"from_state": "ACTIVE", "to_state": "PAUSED", "reason": "idle"}
    async with rooms.database.system() as tx:
        row = await tx.fetchrow("SELECT * FROM audit_events WHERE action = 'session.pause'")
    assert row is not None
    assert (row["category"], row["resource"]) == ("system", f"sessions/{session.id}")


async def test_without_a_default_only_sessions_with_a_time_to_live_are_paused(rooms: Rooms, caller: Caller) -> None:
    await idle_for(rooms, caller, HOUR * 1000)

    assert await cleanup(rooms, None).pause_idle() == 0


async def test_only_active_sessions_are_paused(rooms: Rooms, caller: Caller) -> None:
    for other in SessionState:
        session = await idle_for(rooms, caller, HOUR * 2)
        async with rooms.database.system() as tx:
            await tx.execute("UPDATE sessions SET state = $2 WHERE id = $1", session.id, other)

    assert await cleanup(rooms).pause_idle() == 1


async def test_many_servers_pause_each_session_once(rooms: Rooms, caller: Caller) -> None:
    template = await idle_for(rooms, caller, HOUR * 2)
    count = BATCH + 20
    async with rooms.database.system() as tx:
        await tx.execute(
            """WITH made AS (
                   INSERT INTO sessions (organization_id, id, user_id, display_name, state, spec, tool_policies, limits,
                                         labels, updated_at)
                   SELECT organization_id, uuidv7(), user_id, '', 'ACTIVE', spec, tool_policies, limits, labels,
                          updated_at
                     FROM sessions, generate_series(2, $2) WHERE id = $1 RETURNING organization_id, id)
               INSERT INTO streams (organization_id, stream_id) SELECT organization_id, id FROM made""",
            template.id,
            count,
        )

    paused = await asyncio.gather(*(cleanup(rooms).pause_idle() for _ in range(3)))

    assert sum(paused) == count
    async with rooms.database.system() as tx:
        assert await tx.fetchval("SELECT count(*) FROM sessions WHERE state = 'PAUSED'") == count
        assert await tx.fetchval("SELECT count(*) FROM audit_events WHERE action = 'session.pause'") == count
