"""Expiry: announced beforehand, told once when it comes, refused by the clock; and purging."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stationmaster_server.credentials.expiry import ANNOUNCE, EXPIRE, PURGE
from stationmaster_server.credentials.model import State, Value
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import FailedPrecondition, InvalidArgument, NotFound, Reason

from tests.credentials.room import Room, file_keys, make_room, trail


def ahead(**span: float) -> datetime:
    return datetime.now(UTC) + timedelta(**span)


async def names(room: Room, tenant: Tenant, action: str) -> list[object]:
    return [event["resource"] for event in await trail(room.database, tenant, action)]


async def pass_time(room: Room, table: str = "credentials") -> None:
    """What expires has expired now."""
    async with room.database.system() as tx:
        await tx.execute(f"UPDATE {table} SET expires_at = now() - interval '1 second' WHERE expires_at IS NOT NULL")


async def test_what_expires_soon_is_announced_once_and_again_when_the_end_moves(
    room: Room, owner: Caller, tenant: Tenant
) -> None:
    await room.create(owner, "soon", "x", expires_at=ahead(days=2))
    await room.create(owner, "late", "x", expires_at=ahead(days=30))
    await room.create(owner, "never", "x")
    await asyncio.gather(room.expiry.run(), room.expiry.run())
    await room.expiry.run()
    assert await names(room, tenant, ANNOUNCE) == ["credentials/soon"]
    await room.credentials.update(owner, "soon", {"expires_at": ahead(days=3)})
    await room.expiry.run()
    assert await names(room, tenant, ANNOUNCE) == ["credentials/soon"] * 2
    assert room.expiry.counters.announced == 2


async def test_an_expired_credential_is_refused_at_once_and_told_once(
    room: Room, owner: Caller, tenant: Tenant
) -> None:
    await room.create(owner, "db", "x", expires_at=ahead(days=2))
    await pass_time(room)
    with pytest.raises(FailedPrecondition) as refused:
        await room.read(owner, "db")
    assert refused.value.reason is Reason.CREDENTIAL_EXPIRED
    assert (await room.credentials.get(owner, "db")).state is State.EXPIRED
    for _ in range(2):
        await room.expiry.run()
    assert await names(room, tenant, EXPIRE) == ["credentials/db"]
    await room.credentials.update(owner, "db", {"expires_at": None})
    assert await room.read(owner, "db") == "x"


async def test_a_version_that_expires_is_told_of_while_it_is_in_use(room: Room, owner: Caller, tenant: Tenant) -> None:
    await room.create(owner, "db", "one")
    await room.versions.add(owner, "db", Value("two"), ahead(days=1))
    await room.expiry.run()
    assert await names(room, tenant, ANNOUNCE) == ["credentials/db/versions/2"]
    await room.versions.add(owner, "db", Value("three"), ahead(days=1))
    await pass_time(room, "credential_versions")
    await room.expiry.run()
    assert await names(room, tenant, EXPIRE) == ["credentials/db/versions/3"]


async def test_an_end_in_the_past_is_refused(room: Room, owner: Caller) -> None:
    with pytest.raises(InvalidArgument, match="past"):
        await room.create(owner, "db", "x", expires_at=ahead(seconds=-1))


async def test_what_was_deleted_is_purged_in_its_time_with_all_that_belongs_to_it(
    database: Database, tmp_path: Path, owner: Caller, tenant: Tenant
) -> None:
    room = await make_room(database, file_keys(tmp_path), keep_deleted=timedelta(0))
    await room.create(owner, "db", "x")
    await room.create(owner, "kept", "x")
    await room.credentials.delete(owner, "db")
    await room.expiry.run()
    assert await names(room, tenant, PURGE) == ["credentials/db"]
    with pytest.raises(NotFound):
        await room.credentials.get(owner, "db")
    async with database.system(autocommit=True) as tx:
        assert await tx.fetchval("SELECT count(*) FROM credential_versions") == 1
    again = await room.create(owner, "db", "another")
    assert again.labels.current == 1
    assert await room.read(owner, "db") == "another"
    await room.close()
