"""WatchSession and the stream of SendMessage: replay, then live, every event once and in order, to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

import pytest
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.errors import InvalidArgument, Unavailable
from stationmaster_server.events.model import Batch, NewEvent
from stationmaster_server.sessions import events
from stationmaster_server.sessions.model import Breach, NewSession, Session, SessionState
from stationmaster_server.sessions.turns import Started
from stationmaster_server.sessions.watching import Watching

from tests.sessions.builders import SPEC
from tests.sessions.conftest import Rooms

LIMIT = 10


@pytest.fixture
async def session(rooms: Rooms, caller: Caller) -> Session:
    return await rooms.sessions.create(caller, NewSession(spec=SPEC))


async def append(rooms: Rooms, caller: Caller, session: Session, *new: NewEvent) -> None:
    async with rooms.database.system() as tx:
        await rooms.services.log.append(tx, caller.tenant.organization_id, session.id, list(new))


async def sequences(batches: AsyncGenerator[Batch, None], count: int | None = None) -> list[int]:
    """The sequences of the next events; of all to the end of the stream when no count is given."""
    seen: list[int] = []
    async with asyncio.timeout(LIMIT):
        async for batch in batches:
            seen += [event.sequence for event in batch.events]
            if count is not None and len(seen) >= count:
                break
    return seen


async def test_a_watch_replays_and_goes_on_live_without_a_gap_or_a_repeat(
    rooms: Rooms, caller: Caller, session: Session
) -> None:
    await append(rooms, caller, session, *(events.session_updated(["labels"]) for _ in range(300)))
    async with aclosing(rooms.watching.watch(caller, session.id, 0)) as batches:
        assert await sequences(batches, 301) == list(range(1, 302))

        await append(rooms, caller, session, events.session_updated(["spec"]))
        assert await sequences(batches, 1) == [302]


async def test_a_watch_resumes_after_a_sequence(rooms: Rooms, caller: Caller, session: Session) -> None:
    await append(rooms, caller, session, *(events.session_updated(["labels"]) for _ in range(9)))

    async with aclosing(rooms.watching.watch(caller, session.id, 7)) as batches:
        assert await sequences(batches, 3) == [8, 9, 10]


async def test_a_watch_ends_when_the_session_is_terminated_and_all_is_delivered(
    rooms: Rooms, caller: Caller, session: Session
) -> None:
    batches = rooms.watching.watch(caller, session.id, 0)
    reader = asyncio.create_task(sequences(batches))

    await rooms.sessions.pause(caller, session.id)
    await rooms.sessions.terminate(caller, session.id)

    assert await reader == [1, 2, 3]


async def test_a_watch_of_an_ended_session_replays_and_ends(rooms: Rooms, caller: Caller, session: Session) -> None:
    await rooms.sessions.terminate(caller, session.id)
    await rooms.sessions.archive(caller, session.id)

    assert await sequences(rooms.watching.watch(caller, session.id, 1)) == [2, 3]
    assert await sequences(rooms.watching.watch(caller, session.id, 3)) == []


async def test_a_watch_of_a_terminated_session_waits_for_the_end_of_its_last_turn(
    rooms: Rooms, caller: Caller, session: Session
) -> None:
    turn = new_id()
    async with rooms.database.system() as tx:
        await tx.execute("UPDATE sessions SET current_turn_id = $2 WHERE id = $1", session.id, turn)
    changed = events.session_state_changed(SessionState.PROCESSING, SessionState.TERMINATED)
    await append(rooms, caller, session, changed)
    async with aclosing(rooms.watching.watch(caller, session.id, 0)) as batches:
        assert await sequences(batches, 2) == [1, 2]
        rest = asyncio.create_task(sequences(batches))

        async with rooms.database.system() as tx:
            await tx.execute("UPDATE sessions SET current_turn_id = NULL WHERE id = $1", session.id)
            last = [events.limit_reached(turn, Breach("x", 1, 2))]
            await rooms.services.log.append(tx, caller.tenant.organization_id, session.id, last)

        assert await rest == [3]


async def test_a_cursor_past_the_end_is_refused(rooms: Rooms, caller: Caller, session: Session) -> None:
    with pytest.raises(InvalidArgument):
        await sequences(rooms.watching.watch(caller, session.id, 5), 1)


async def test_a_cursor_past_the_end_of_an_ended_session_is_refused_as_well(
    rooms: Rooms, caller: Caller, session: Session
) -> None:
    await rooms.sessions.terminate(caller, session.id)

    with pytest.raises(InvalidArgument):
        await sequences(rooms.watching.watch(caller, session.id, 5))


async def test_a_stopping_server_tells_its_readers_to_come_again(
    rooms: Rooms, caller: Caller, session: Session
) -> None:
    async with aclosing(rooms.watching.watch(caller, session.id, 0)) as batches:
        assert await sequences(batches, 1) == [1]
        rest = asyncio.create_task(sequences(batches))
        await asyncio.sleep(0)
        await rooms.services.log.close()

        with pytest.raises(Unavailable):
            await rest


async def test_the_stream_of_a_turn_has_its_events_alone_and_ends_with_it(
    rooms: Rooms, caller: Caller, session: Session
) -> None:
    mine, other = new_id(), new_id()
    finished = NewEvent("turn_finished", {"turn": str(mine)})
    await append(
        rooms,
        caller,
        session,
        events.turn_queued(mine, 1),
        events.text_delta(other, 1, "not mine"),
        NewEvent("turn_finished", {"turn": str(other)}),
        events.text_delta(mine, 1, "mine"),
    )
    reader = asyncio.create_task(sequences(rooms.watching.follow(caller, session.id, Started(mine, 1))))

    await append(rooms, caller, session, finished, events.session_updated(["labels"]))

    assert await reader == [2, 5, 6]


async def test_the_stream_of_a_turn_tells_how_far_it_has_come_while_others_talk(
    rooms: Rooms, caller: Caller, session: Session
) -> None:
    """A turn that waits for another that streams is no idle stream, yet its reader hears nothing of it."""
    watching = Watching(rooms.database, rooms.services.log, keepalive=timedelta())
    async with asyncio.timeout(LIMIT), aclosing(watching.follow(caller, session.id, Started(new_id(), 1))) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await append(rooms, caller, session, events.text_delta(new_id(), 1, "not mine"))
        assert await waiting == Batch([], 2)


async def test_the_stream_of_a_turn_ends_at_a_permission_only_when_asked(
    rooms: Rooms, caller: Caller, session: Session
) -> None:
    turn = new_id()
    await append(rooms, caller, session, NewEvent("permission_requested", {"turn": str(turn)}))
    stopping = rooms.watching.follow(caller, session.id, Started(turn, 1), stop_at_permission=True)
    going_on = asyncio.create_task(sequences(rooms.watching.follow(caller, session.id, Started(turn, 1))))

    assert await sequences(stopping) == [2]
    await append(rooms, caller, session, NewEvent("turn_finished", {"turn": str(turn)}))
    assert await going_on == [2, 3]
