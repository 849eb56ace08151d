"""Files that object storage makes of parts: whatever is lost on the way, and whoever else makes them too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from stationmaster_server.app.storage import bucket_of
from stationmaster_server.config import load
from stationmaster_server.storage.places.place import Gone, Home
from stationmaster_server.storage.places.s3 import S3Place

from tests.fixtures.server import StartServer, running, server_settings
from tests.storage.desk import Desk
from tests.storage.places import PART, S3Site
from tests.storage.wire import Wire, between, completes
from tests.waiting import until

DATA = os.urandom(5 * PART + 321)
HOME = Home(uuid4(), uuid4())


@pytest_asyncio.fixture
async def wire(bucket: S3Site) -> AsyncIterator[Wire]:
    async with between(bucket.endpoint) as wire:
        yield wire


def place_at(site: S3Site, url: str = "") -> S3Place:
    return S3Place(
        bucket_of(load(None, {"storage": replace(site, endpoint=url or site.endpoint).settings()}, environ={})), PART
    )


async def sealed(place: S3Place, data: bytes = DATA) -> UUID:
    upload_id = uuid4()
    async with place.receive(HOME, upload_id, 0) as receiver:
        await receiver.write(data)
        await receiver.seal()
    return upload_id


async def get(place: S3Place, path: str) -> bytes:
    async with place.read(HOME, path.split("/")) as reading:
        return b"".join([piece async for piece in reading.pieces(0)])


@pytest.mark.parametrize("data", [DATA, b"small"], ids=["of parts", "of one part"])
@pytest.mark.parametrize("before", [b"", b"what was there before"])
async def test_a_file_whose_making_was_not_answered_is_told_to_be_there(
    bucket: S3Site, wire: Wire, before: bytes, data: bytes
) -> None:
    place = place_at(bucket, wire.url)
    if before:
        await place.publish(HOME, await sealed(place, before), ["a"])
    upload_id = await sealed(place, data)
    wire.lose(completes if len(data) > PART else lambda line: line.startswith("PUT ") and "workspaces/" in line)
    published = await place.publish(HOME, upload_id, ["a"])
    assert (published.found.size_bytes, published.replaced_bytes) == (len(data), len(before) or None)
    assert await get(place, "a") == data
    assert await bucket.everything() == {"a"}
    assert "<UploadId>" not in await bucket.uploads()
    assert (await place.publish(HOME, upload_id, ["a"])).known is False
    await place.close()


async def test_an_upload_whose_making_was_not_answered_is_counted_and_told(
    database_url: str, tmp_path: Path, bucket: S3Site, wire: Wire
) -> None:
    settings = server_settings(tmp_path, database_url, storage=replace(bucket, endpoint=wire.url).settings())
    async with running(settings) as server, server.channel() as channel:
        desk = await Desk.open(channel)
        await desk.put("a", DATA[::-1])
        wire.lose(completes)
        assert (await desk.put("a", DATA)).size_bytes == len(DATA)
        assert await desk.get("a") == DATA
        info = await desk.info()
        assert (info.used_bytes, info.file_count, info.reserved_bytes) == (len(DATA), 1, 0)
    connection = await asyncpg.connect(database_url)
    try:
        outcomes = await connection.fetch("SELECT outcome FROM audit_events WHERE action = 'file.put'")
        assert [row["outcome"] for row in outcomes] == ["allowed", "allowed"]
    finally:
        await connection.close()


@pytest.mark.parametrize("held", ["copy", "complete"])
async def test_two_servers_that_make_the_same_file_both_find_it_made(bucket: S3Site, wire: Wire, held: str) -> None:
    slow, fast = place_at(bucket, wire.url), place_at(bucket)
    upload_id = await sealed(fast)
    wire.hold(completes if held == "complete" else lambda line: "partNumber=2" in line)
    making = asyncio.create_task(slow.publish(HOME, upload_id, ["a"]))
    await wire.held()
    assert (await fast.publish(HOME, upload_id, ["a"])).found.size_bytes == len(DATA)
    wire.let_go()
    assert (await making).found.size_bytes == len(DATA)
    assert await get(fast, "a") == DATA
    assert await bucket.everything() == {"a"}
    assert "<UploadId>" not in await bucket.uploads()


async def test_a_server_that_comes_too_late_brings_back_no_file_that_was_deleted_or_replaced(
    bucket: S3Site, wire: Wire
) -> None:
    slow, fast = place_at(bucket, wire.url), place_at(bucket)
    for name, after in (("deleted", b""), ("replaced", b"another")):
        upload_id = await sealed(fast)
        wire.hold(completes)
        making = asyncio.create_task(slow.publish(HOME, upload_id, [name]))
        await wire.held()
        await fast.publish(HOME, upload_id, [name])
        await fast.remove(HOME, [name])
        if after:
            await fast.publish(HOME, await sealed(fast, after), [name])
        wire.let_go()
        with pytest.raises(Gone):
            await making
        found = await fast.find(HOME, [name])
        assert (found and found.size_bytes) == (len(after) or None)
    assert await bucket.everything() == {"replaced"}


async def test_two_files_that_are_made_at_one_path_at_once_do_not_fail(bucket: S3Site, wire: Wire) -> None:
    slow, fast = place_at(bucket, wire.url), place_at(bucket)
    first, second = await sealed(fast), await sealed(fast, DATA[::-1])
    wire.hold(completes)
    making = asyncio.create_task(slow.publish(HOME, first, ["a"]))
    await wire.held()
    await fast.publish(HOME, second, ["a"])
    wire.let_go()
    assert (await making).replaced_bytes == len(DATA)
    assert await get(fast, "a") == DATA
    assert await bucket.everything() == {"a"}


async def test_a_server_that_is_killed_while_a_file_is_made_has_another_make_it(
    server_process: StartServer, database_url: str, bucket: S3Site, wire: Wire
) -> None:
    first = await server_process(
        database_url=database_url, environment=replace(bucket, endpoint=wire.url).environment()
    )
    async with first.channel() as channel:
        desk = await Desk.open(channel)
        await desk.put("a", b"before")
        wire.hold(completes)
        putting = asyncio.create_task(desk.put("a", DATA))
        await wire.held()
        assert "<UploadId>" in await bucket.uploads()
        assert not putting.done()
        await first.kill()
        await asyncio.gather(putting, return_exceptions=True)
    second = await server_process(database_url=database_url, environment=bucket.environment())
    async with second.channel() as channel:
        desk = Desk(channel, desk.session)

        async def made() -> bool:
            return (await desk.stat("a")).size_bytes == len(DATA) and await bucket.everything() == {"a"}

        await until(made, seconds=60)
        wire.let_go()

        async def counted() -> bool:
            info = await desk.info()
            return (info.used_bytes, info.file_count, info.reserved_bytes) == (len(DATA), 1, 0)

        await until(counted, seconds=60)
        assert "<UploadId>" not in await bucket.uploads()
        assert await desk.get("a") == DATA
