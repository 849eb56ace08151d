"""Places in the trail: from 1, without holes, in the order of commits, whoever races."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest
import structlog
from stationmaster_server.audit.model import AuditEntry, Outcome
from stationmaster_server.audit.sequencer import Sequencer, place
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.identity.model import Caller

from tests.audit.conftest import Server, running
from tests.db.conditions import eventually


def all_placed(database: Database, count: int) -> Callable[[], Awaitable[bool]]:
    """A condition: so many events have their places, and none waits."""

    async def placed() -> bool:
        async with database.system(autocommit=True) as tx:
            placed_events: int = await tx.fetchval("SELECT count(*) FROM audit_positions")
            queued: int = await tx.fetchval("SELECT count(*) FROM audit_queue")
        return (placed_events, queued) == (count, 0)

    return placed


async def check_trail(database: Database) -> None:
    """Every event has one place, and each organization's places are 1, 2, 3..."""
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch(
            "SELECT organization_id, array_agg(sequence ORDER BY sequence) AS places FROM audit_positions GROUP BY 1"
        )
        for row in rows:
            assert row["places"] == list(range(1, len(row["places"]) + 1))
        assert await tx.fetchval("SELECT count(*) FROM audit_events") == sum(len(row["places"]) for row in rows)
        assert not await tx.fetch(
            "SELECT FROM audit_events e LEFT JOIN audit_positions p ON p.organization_id = e.organization_id"
            " AND p.event_id = e.id AND p.created_at = e.created_at WHERE p.event_id IS NULL"
        )
        heads = await tx.fetch("SELECT organization_id, last_sequence FROM audit_heads")
        assert dict(tuple(row) for row in heads) == {row["organization_id"]: len(row["places"]) for row in rows}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_places_are_complete_and_without_holes_under_concurrent_writers(
    database: Database, caller: Caller, stranger: Caller, seed: int
) -> None:
    dice = random.Random(seed)
    entry = AuditEntry("thing.change", "things/1")

    async def write(server: Server, who: Caller, kind: float, pause: float) -> int:
        if kind < 0.3:
            await server.log.write_refusal(who, AuditEntry("thing.read", "things/1", Outcome.DENIED))
            return 1
        try:
            async with database.tenant(who.tenant) as tx:
                await server.log.write(tx, who, entry)
                await asyncio.sleep(pause)  # transactions commit in another order than they write
                if kind > 0.8:
                    raise ZeroDivisionError
                await server.log.write(tx, who, entry)
        except ZeroDivisionError:
            return 0
        return 2

    async with running(database) as one, running(database) as two:
        writes = [
            write(dice.choice((one, two)), dice.choice((caller, stranger)), dice.random(), dice.random() * 0.1)
            for _ in range(200)
        ]
        written = sum(await asyncio.gather(*writes))
        await eventually(all_placed(database, written))
    await check_trail(database)


async def test_an_event_that_is_committed_late_is_placed_then(server: Server, caller: Caller) -> None:
    async with server.database.tenant(caller.tenant) as tx:
        late = await server.log.write(tx, caller, AuditEntry("thing.late", "things/1"))
        await server.change(caller)
        await eventually(all_placed(server.database, 1))
    await eventually(all_placed(server.database, 2))
    assert (await server.trail.get(caller, late)).sequence == 2
    await check_trail(server.database)


async def test_what_follows_an_event_has_a_later_place(server: Server, database: Database, caller: Caller) -> None:
    async with running(database) as other:
        for number in range(20):
            await (server, other)[number % 2].change(caller, f"thing.{number:02}")
        await eventually(all_placed(database, 20))
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch(
            "SELECT e.action FROM audit_positions p JOIN audit_events e ON e.id = p.event_id ORDER BY p.sequence"
        )
    assert [row["action"] for row in rows] == [f"thing.{number:02}" for number in range(20)]


async def test_what_a_server_left_behind_another_one_places(database: Database, caller: Caller) -> None:
    died = AuditLog(database)  # never started: it writes and places nothing
    async with database.tenant(caller.tenant) as tx:
        await died.write(tx, caller, AuditEntry("thing.change", "things/1"))
    async with running(database):
        await eventually(all_placed(database, 1), seconds=3)


async def test_an_event_that_was_deleted_before_it_had_its_place_is_told(database: Database, caller: Caller) -> None:
    log = AuditLog(database)
    for _ in range(2):
        async with database.tenant(caller.tenant) as tx:
            await log.write(tx, caller, AuditEntry("thing.change", "things/1"))
    async with database.system() as tx:
        await tx.execute(
            "DELETE FROM audit_events WHERE id = (SELECT event_id FROM audit_queue ORDER BY ordinal LIMIT 1)"
        )
    with structlog.testing.capture_logs() as logs:
        for taken in (1, 1, 0):
            async with database.system() as tx:
                assert await place(tx, 1) == taken
    assert [line["events"] for line in logs if "deleted before" in line["event"]] == [1]
    assert await all_placed(database, 1)()


async def test_a_backlog_is_placed_in_batches(database: Database, caller: Caller) -> None:
    async with database.system() as tx:
        await tx.execute(
            """
            WITH new AS (
                INSERT INTO audit_events
                SELECT $1, now(), gen_random_uuid(), 'business', 'a', 'allowed', 'x', '', '', '', '', '', '', '', '{}'
                FROM generate_series(1, 12000) RETURNING organization_id, id, created_at
            )
            INSERT INTO audit_queue (organization_id, event_id, created_at) SELECT * FROM new
            """,
            caller.tenant.organization_id,
        )
    sequencer = Sequencer(database, look=timedelta(milliseconds=10))
    sequencer.start()
    try:
        await eventually(all_placed(database, 12000))
    finally:
        await sequencer.close()
    await check_trail(database)


async def test_what_comes_during_the_last_round_is_placed_before_the_end(database: Database, caller: Caller) -> None:
    log = AuditLog(database)
    await log.start()

    async def change() -> None:
        async with database.tenant(caller.tenant) as tx:
            await log.write(tx, caller, AuditEntry("thing.change", "things/1"))

    async def in_its_round() -> bool:
        sql = """SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted
                 AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database()))"""
        async with database.system(autocommit=True) as tx:
            return bool(await tx.fetchval(sql))

    await change()
    await eventually(all_placed(database, 1))
    async with database.system() as tx:
        await tx.fetch("SELECT FROM audit_heads FOR UPDATE")  # where a round ends
        await change()
        await eventually(in_its_round)
        await change()
        closing = asyncio.create_task(log.close())
        await asyncio.sleep(0)
    await closing
    assert await all_placed(database, 3)()


async def test_a_place_is_given_within_a_second(server: Server, caller: Caller) -> None:
    await server.change(caller)
    await eventually(all_placed(server.database, 1), seconds=1)


async def test_an_error_that_nobody_foresaw_does_not_end_the_placing_of_events(
    server: Server, database: Database, caller: Caller, administrator_url: str
) -> None:
    administrator = await asyncpg.connect(administrator_url)
    try:
        with structlog.testing.capture_logs() as logs:
            await administrator.execute("REVOKE ALL ON audit_queue FROM stationmaster_system")
            await server.change(caller)
            await eventually(lambda: any("exc_info" in line for line in logs))
        await administrator.execute("GRANT ALL ON audit_queue TO stationmaster_system")
    finally:
        await administrator.close()
    await eventually(all_placed(database, 1))
