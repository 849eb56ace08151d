"""Live tails of the trail: replay, then live, without gap or repeat."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest
from stationmaster_server.audit.model import AuditEvent
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import InvalidArgument, Unavailable
from stationmaster_server.identity.model import Caller

from tests.audit.conftest import Server, running

LIMIT = 20


async def collect(
    server: Server, caller: Caller, count: int, after: int | None = 0, where: str = ""
) -> list[AuditEvent]:
    """The first so many events of a watch."""
    events: list[AuditEvent] = []
    async with asyncio.timeout(LIMIT), aclosing(server.trail.watch(caller, where, after)) as batches:
        async for batch in batches:
            events += batch.events
            if batch.events:
                assert batch.last_sequence >= batch.events[-1].sequence
            if len(events) >= count:
                break
    return events


async def test_a_watch_replays_and_goes_on_live_on_another_server(
    server: Server, database: Database, caller: Caller
) -> None:
    for _ in range(10):
        await server.change(caller)
    async with running(database) as other:
        watch = asyncio.create_task(collect(other, caller, 30))
        await asyncio.gather(*(server.change(caller) for _ in range(20)))
        events = await watch
    assert [event.sequence for event in events] == list(range(1, 31))


async def test_a_watch_resumes_after_what_was_seen(server: Server, caller: Caller) -> None:
    for _ in range(10):
        await server.change(caller)
    first = await collect(server, caller, 10)
    for _ in range(3):
        await server.change(caller)
    rest = await collect(server, caller, 3, after=first[-1].sequence)
    assert [event.sequence for event in rest] == [11, 12, 13]
    assert [event.sequence for event in await collect(server, caller, 8, after=5)] == list(range(6, 14))


async def test_a_long_trail_is_replayed_in_pages(server: Server, caller: Caller) -> None:
    await asyncio.gather(*(server.change(caller) for _ in range(450)))
    events = await collect(server, caller, 450)
    assert [event.sequence for event in events] == list(range(1, 451))


async def test_only_what_matches_is_shown(server: Server, caller: Caller) -> None:
    for number in range(10):
        await server.change(caller, f"thing.{number % 2}")
    events = await collect(server, caller, 5, where='action = "thing.1"')
    assert [event.sequence for event in events] == [2, 4, 6, 8, 10]
    with pytest.raises(InvalidArgument):
        server.trail.watch(caller, "shoe_size = 1", 0)


async def test_others_see_nothing_of_it(server: Server, caller: Caller, stranger: Caller) -> None:
    watch = asyncio.create_task(collect(server, stranger, 1))
    await server.change(caller)
    await collect(server, caller, 1)
    await server.change(stranger, "thing.own")
    assert [event.action for event in await watch] == ["thing.own"]


async def test_an_idle_watch_tells_the_newest_sequence(database: Database, caller: Caller) -> None:
    async with running(database, keepalive=timedelta(milliseconds=20)) as server:
        await server.change(caller)
        await collect(server, caller, 1)
        async with asyncio.timeout(LIMIT), aclosing(server.trail.watch(caller, "", None)) as batches:
            keepalive = await anext(batches)
        assert (keepalive.events, keepalive.last_sequence) == ([], 1)


async def test_a_watch_of_what_is_new_tells_at_once_where_that_begins(database: Database, caller: Caller) -> None:
    """So that a client whose stream breaks before anything came goes on from there."""
    async with running(database, keepalive=timedelta(hours=1)) as server:
        await server.change(caller)
        await collect(server, caller, 1)
        async with asyncio.timeout(LIMIT), aclosing(server.trail.watch(caller, "", None)) as batches:
            first = await anext(batches)
    assert (first.events, first.last_sequence) == ([], 1)


async def test_a_watch_that_matches_nothing_tells_how_far_it_has_come(database: Database, caller: Caller) -> None:
    """However busy the trail is: silence would be taken for a dead server, and a new start would read it all again."""
    async with running(database, keepalive=timedelta()) as server:
        await asyncio.gather(*(server.change(caller) for _ in range(250)))
        await collect(server, caller, 250)
        async with asyncio.timeout(LIMIT), aclosing(server.trail.watch(caller, 'action = "other"', 0)) as batches:
            told = [await anext(batches) for _ in range(2)]
    assert [(batch.events, batch.last_sequence) for batch in told] == [([], 200), ([], 250)]


async def test_a_watch_of_what_is_new_skips_what_was(server: Server, caller: Caller) -> None:
    await server.change(caller, "thing.old")
    await collect(server, caller, 1)
    async with asyncio.timeout(LIMIT), aclosing(server.trail.watch(caller, "", None)) as batches:
        assert (await anext(batches)).events == []
        waiting = asyncio.ensure_future(anext(batches))
        await server.change(caller, "thing.new")
        seen = [event.action for event in (await waiting).events]
    assert seen == ["thing.new"]


async def test_a_lost_notification_delays_a_watch_by_no_more_than_its_look(
    server: Server, database: Database, caller: Caller
) -> None:
    async with running(database) as other:
        await other.listener.stop()
        watch = asyncio.create_task(collect(other, caller, 1))
        await server.change(caller)
        assert len(await watch) == 1


async def test_a_server_that_stops_says_so(database: Database, caller: Caller) -> None:
    async with running(database) as server:
        watch = asyncio.create_task(collect(server, caller, 2))
        await server.change(caller)
        await collect(server, caller, 1)
    with pytest.raises(Unavailable):
        await watch


async def test_watches_that_ended_leave_nothing_behind(server: Server, caller: Caller) -> None:
    await server.change(caller)
    await asyncio.gather(*(collect(server, caller, 1) for _ in range(20)))
    assert server.trail.watched == 0
