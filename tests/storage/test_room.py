"""Quotas of storage: never more than there is room for, not even for a moment, whoever writes at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import identity_pb2
from stationmaster.v1.identity_pb2_grpc import IdentityServiceStub

from tests.storage.desk import Desk
from tests.storage.places import PART, Site
from tests.storage.test_files import audit, refused
from tests.waiting import until

FILE = os.urandom(PART // 4 + 11)
ROOM = 10 * len(FILE)
WRITERS = 50
COUNTED = "SELECT sum(storage_reserved + storage_used)::bigint FROM quota_usage GROUP BY subject_id"


async def limit(desk: Desk, subject: str, room: int | None) -> None:
    """Set how much a user or organization may store, and wait until the server goes by it."""
    identity: Any = IdentityServiceStub(desk.channel)
    quota = identity_pb2.Quota(name=f"{subject}/quota", max_storage_bytes=room)
    mask = FieldMask(paths=["max_storage_bytes"])
    await identity.SetQuota(identity_pb2.SetQuotaRequest(quota=quota, update_mask=mask))
    wanted = "INVALID_FIELD" if room is None else "QUOTA_EXCEEDED"  # of an upload that sends nothing

    async def known() -> bool:
        return (await refused(desk.put("probe", size_bytes=6 * PART)))[1] == wanted

    await until(known)


@asynccontextmanager
async def watching(url: str, site: Site) -> AsyncIterator[list[int]]:
    """Looks over and over at what is set aside and stored, in the database and in the place."""
    seen: list[int] = []
    over = asyncio.Event()

    async def look() -> None:
        connection = await asyncpg.connect(url)
        try:
            while not over.is_set():
                seen.extend([row[0] for row in await connection.fetch(COUNTED)])
                seen.append(await site.size())
        finally:
            await connection.close()

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        over.set()
        await task


@pytest.mark.parametrize("of_organization", [False, True])
@pytest.mark.parametrize("announced", [True, False])
async def test_fifty_writers_at_once_never_pass_a_quota_of_ten_files(
    desk: Desk, myself: tuple[str, str], site: Site, database_url: str, of_organization: bool, announced: bool
) -> None:
    subject = myself[of_organization]
    await limit(desk, subject, ROOM)
    size = len(FILE) if announced else None

    async def write(number: int) -> str:
        pieces = [FILE[at : at + 20_000] for at in range(0, len(FILE), 20_000)]
        try:
            await desk.put(f"{number}", FILE, chunks=pieces, size_bytes=size)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"

    before = len(await audit(database_url, "quota.refuse"))
    async with watching(database_url, site) as seen:
        outcomes = await asyncio.gather(*(write(number) for number in range(WRITERS)))
    assert len(seen) > 4
    assert max(seen) <= ROOM
    assert set(outcomes) <= {"OK", "RESOURCE_EXHAUSTED"}
    written = outcomes.count("OK")
    # Those that do not say how large they will be may take the last room from each other.
    assert written == 10 if announced else written <= 10
    assert len(await desk.list(recursive=True, page_size=1000)) == written
    usage = await desk.usage(subject)
    assert (usage.used_bytes, usage.reserved_bytes, usage.max_bytes) == (written * len(FILE), 0, ROOM)
    assert len(await site.everything()) == written
    refusals = await audit(database_url, "quota.refuse")
    assert len(refusals) - before == WRITERS - written


async def test_room_is_set_aside_before_the_first_byte_and_freed_by_deleting(
    desk: Desk, myself: tuple[str, str]
) -> None:
    await limit(desk, myself[0], 1000)
    upload = await desk.break_off("a", b"x" * 900, after=0)
    assert await refused(desk.put("b", b"x" * 101)) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    await desk.put("b", b"x" * 100)
    await desk.cancel(upload)
    await desk.put("c", b"x" * 900)
    assert await refused(desk.put("d", b"x")) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    await desk.delete("b")
    await desk.put("d", b"x")
    await limit(desk, myself[0], None)
    await desk.put("e", b"x" * 2000)


async def test_a_larger_file_than_is_allowed_is_refused_before_and_while_it_comes(desk: Desk) -> None:
    most = 6 * PART
    assert await refused(desk.put("a", size_bytes=most + 1)) == ("FAILED_PRECONDITION", "LIMIT_REACHED")
    pieces = [b"x" * PART] * 7
    assert await refused(desk.put("a", chunks=pieces, size_bytes=None, sha256=None)) == (
        "FAILED_PRECONDITION",
        "LIMIT_REACHED",
    )
    assert (await desk.info()).reserved_bytes == 0
    await desk.put("a", b"x" * most)


@pytest.fixture
def storage_settings() -> dict[str, Any]:
    return {"max_file_bytes": 6 * PART}
