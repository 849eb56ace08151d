"""What is of object storage alone: how files are made there, what is left, and what is said when it does not work."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from stationmaster.v1 import session_pb2
from stationmaster_server.app.doctor import examine
from stationmaster_server.app.storage import bucket_of
from stationmaster_server.config import SettingsError, load
from stationmaster_server.errors import Aborted, Reason, Unavailable
from stationmaster_server.resilience.aws_identity import AwsIdentities
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.places.place import Gone, Home
from stationmaster_server.storage.places.s3 import S3Place
from stationmaster_server.storage.places.s3_compose import compose
from stationmaster_server.storage.places.s3_requests import Requests
from stationmaster_server.storage.places.s3_store import Bucket, Objects

from tests.contract.world import code_of, reason_of
from tests.fixtures.server import running, server_settings
from tests.storage.desk import Desk
from tests.storage.places import PART, S3Site
from tests.waiting import until

DATA = os.urandom(5 * PART + 321)
HOME = Home(uuid4(), uuid4())


@pytest.fixture
def objects(bucket: S3Site) -> Objects:
    return bucket_of(load(None, {"storage": bucket.settings()}, environ={}))


@pytest.fixture
def there(objects: Objects) -> S3Place:
    return S3Place(objects, PART)


async def put(place: S3Place, path: str, data: bytes, upload_id: UUID | None = None) -> None:
    upload_id = upload_id or uuid4()
    async with place.receive(HOME, upload_id, 0) as receiver:
        await receiver.write(data)
        assert (await receiver.seal()).size_bytes == len(data)
    await place.publish(HOME, upload_id, path.split("/"))


async def get(place: S3Place, path: str, offset: int = 0) -> bytes:
    async with place.read(HOME, path.split("/")) as reading:
        return b"".join([piece async for piece in reading.pieces(offset)])


async def test_a_file_is_one_object_and_nothing_is_left_of_its_parts(there: S3Place, bucket: S3Site) -> None:
    for path, data in (("large", DATA), ("exactly", DATA[: 2 * PART]), ("small", b"x"), ("none", b"")):
        await put(there, path, data)
        assert await get(there, path) == data
    assert await bucket.everything() == {"large", "exactly", "small", "none"}
    assert "<UploadId>" not in await bucket.uploads()


async def test_what_a_server_that_died_had_begun_to_make_is_forgotten_when_another_makes_it(
    there: S3Place, objects: Objects, bucket: S3Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = uuid4()
    async with there.receive(HOME, upload_id, 0) as receiver:
        await receiver.write(DATA)
        await receiver.seal()
    died = asyncio.Event()

    async def die(*_: object) -> None:
        died.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(Requests, "complete", die)
        patched.setattr(Requests, "abort", die)
        making = asyncio.create_task(there.publish(HOME, upload_id, ["a"]))
        await died.wait()
        assert "<UploadId>" in await bucket.uploads()
        assert await there.find(HOME, ["a"]) is None
    await there.publish(HOME, upload_id, ["a"])
    assert await get(there, "a") == DATA
    assert "<UploadId>" not in await bucket.uploads()
    making.cancel()


async def test_a_file_of_which_a_part_is_missing_is_not_made(there: S3Place, objects: Objects, bucket: S3Site) -> None:
    await put(there, "a", b"before")
    upload_id = uuid4()
    async with there.receive(HOME, upload_id, 0) as receiver:
        await receiver.write(DATA)
        await receiver.seal()
    parts = [each.key async for each in objects.below(f"uploads/{HOME.session_id}/{upload_id}")]
    await objects.delete(parts[1:2])
    with pytest.raises(Gone):
        await there.publish(HOME, upload_id, ["a"])
    await there.discard(HOME, upload_id)
    assert await get(there, "a") == b"before"
    assert await bucket.everything() == {"a"}
    assert "<UploadId>" not in await bucket.uploads()


async def test_a_stream_that_does_not_know_that_it_was_taken_over_hurts_no_file(there: S3Place) -> None:
    upload_id, other = uuid4(), os.urandom(2 * PART)
    async with there.receive(HOME, upload_id, 0) as old:
        await old.write(other[:PART])
        await old.write(other[PART : PART + 100])
        async with there.receive(HOME, upload_id, 0) as new:
            await new.write(DATA)
            sealed = await new.seal()
        await old.write(other[PART + 100 :])
    await there.publish(HOME, upload_id, ["a"])
    assert sealed.size_bytes == len(DATA)
    assert await get(there, "a") == DATA


async def test_only_the_last_part_of_an_upload_that_broke_off_and_went_on_is_short(
    there: S3Place, objects: Objects
) -> None:
    upload_id = uuid4()
    for start, end in ((0, PART + 100), (PART + 100, PART + 200), (PART + 200, len(DATA))):
        async with there.receive(HOME, upload_id, start) as receiver:
            assert receiver.offset == start
            await receiver.write(DATA[start:end])
            if end == len(DATA):
                await receiver.seal()
    upload = f"uploads/{HOME.session_id}/{upload_id}"
    used = json.loads(await objects.get(f"{upload}/sealed"))
    sizes = {each.key: each.size async for each in objects.below(upload)}
    assert min(sizes[key] for key in used[:-1]) >= PART
    await there.publish(HOME, upload_id, ["a"])
    assert await get(there, "a") == DATA


async def test_a_file_that_is_replaced_while_it_is_read_is_not_mixed(there: S3Place) -> None:
    large = os.urandom(9 * 1024 * 1024)
    await put(there, "a", large)
    async with there.read(HOME, ["a"]) as reading:
        pieces = reading.pieces(0)
        seen = [await anext(pieces)]
        await put(there, "a", large[::-1])
        with pytest.raises(Aborted, match="changed"):
            seen += [piece async for piece in pieces]
    assert large.startswith(b"".join(seen))
    assert await get(there, "a", 9 * 1024 * 1024 - 5) == large[:5][::-1]


async def test_files_and_folders_do_not_share_a_name(there: S3Place) -> None:
    await put(there, "a/b", b"x")
    await put(there, "c", b"x")
    for path in ("a", "c/d", "a/b/c/d"):
        with pytest.raises(PathRefused):
            await put(there, path, b"y")
    with pytest.raises(PathRefused):
        await there.move(HOME, ["c"], ["a"])
    with pytest.raises(PathRefused):
        await there.list(HOME, ["c"], recursive=False, after="", limit=9)
    assert await get(there, "a/b") == await get(there, "c") == b"x"


async def test_a_listing_goes_on_where_it_was(there: S3Place) -> None:
    paths = ["a/x", "a/y/z", "a-b", "a0", "b", "c/d"]
    for path in paths:
        await put(there, path, path.encode())
    for recursive, expected in ((True, sorted(paths)), (False, ["a", "a-b", "a0", "b", "c"])):
        for limit in (1, 2, 5, 100):
            found, after = list[str](), ""
            while True:
                listed = await there.list(HOME, [], recursive=recursive, after=after, limit=limit)
                found += [each.path for each in listed.found]
                if not (after := listed.after):
                    break
            assert found == expected
    assert (await there.measure(HOME)).file_count == len(paths)
    assert await there.clear(HOME)
    assert not await there.clear(HOME)


async def test_a_path_that_has_no_room_in_a_key_is_refused(there: S3Place) -> None:
    with pytest.raises(PathRefused, match="too long"):
        await put(there, "/".join(["x" * 200] * 5), b"")


async def test_what_is_asked_of_a_store_that_is_away_is_unavailable_and_says_what_to_do(
    object_storage: str, database_url: str, tmp_path: Path
) -> None:
    site = S3Site(object_storage, f"missing-{uuid4().hex}")
    settings = server_settings(tmp_path, database_url, storage=site.settings())
    async with running(settings) as server, server.channel() as channel:
        desk = await Desk.open(channel)
        for call in (desk.put("a", b"x"), desk.list(), desk.list(recursive=True)):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert (code_of(error.value), reason_of(error.value)) == ("UNAVAILABLE", "STORAGE_UNAVAILABLE")
            assert site.bucket in str(error.value.details())


async def test_a_store_that_refuses_or_does_not_answer_is_told_from_one_without_the_object() -> None:
    for endpoint in ("http://127.0.0.1:1", "http://localhost:1"):
        away = Objects(Bucket("bucket", "x", endpoint), AwsIdentities(None, container_url="http://127.0.0.1:1/"))
        for call in (away.head("a"), away.put("a", b""), away.get("a"), away.delete(["a"]), away.sweep("a")):
            with pytest.raises(Unavailable, match="bucket 'bucket'"):
                await call
        with pytest.raises(Unavailable, match="bucket 'bucket'"):
            await compose(Requests(away), ["a", "b"], "c", "mark")
        await away.close()


async def test_a_change_that_was_decided_is_made_when_the_store_is_back(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: S3Site
) -> None:
    monkeypatch.setattr("stationmaster_server.storage.file_store.LEASE", timedelta(seconds=1))
    original: Callable[..., Any] = Requests.copy
    away = [True]

    async def copy(self: Requests, *args: str) -> None:
        if away[0]:
            raise Unavailable(Reason.STORAGE_UNAVAILABLE, "it is away")
        await original(self, *args)

    monkeypatch.setattr(Requests, "copy", copy)
    settings = server_settings(tmp_path, database_url, storage=bucket.settings())
    async with running(settings) as server, server.channel() as channel:
        desk = await Desk.open(channel)
        upload = str(uuid4())
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await desk.put("a", b"decided", upload=upload)
        assert reason_of(error.value) == "STORAGE_UNAVAILABLE"
        away[0] = False

        async def made() -> bool:
            return await desk.list() == ["a"]

        await until(made, seconds=60)
        assert await desk.get("a") == b"decided"
        await until(lambda: _empty(bucket))


async def _empty(bucket: S3Site) -> bool:
    return await bucket.everything() == {"a"}


async def test_an_agent_sees_the_files_that_were_put(database_url: str, tmp_path: Path, bucket: S3Site) -> None:
    settings = server_settings(tmp_path, database_url, storage=bucket.settings())
    async with running(settings) as server, server.channel() as channel:
        desk = await Desk.open(channel)
        await desk.put("folder/seen.txt", b"the text")
        request = session_pb2.SendMessageRequest(
            session=desk.session, text='/tool files.read {"path": "folder/seen.txt"}'
        )
        assert "the text" in str([answer async for answer in desk.sessions.SendMessage(request)])


async def test_doctor_tries_the_bucket(tmp_path: Path, bucket: S3Site) -> None:
    assert "OK    files" in await said(tmp_path, bucket)
    assert await bucket.everything() == set()
    missing = S3Site(bucket.endpoint, "missing")
    text = await said(tmp_path, missing)
    assert "FAIL  files" in text
    assert "there is no such bucket" in text


async def said(folder: Path, site: S3Site) -> str:
    findings: list[str] = []
    overrides = {"data_folder": str(folder), "storage": site.settings(), "server": {"port": 0}, "admin": {"port": 0}}
    await examine(None, overrides, findings.append)
    return "\n".join(findings)


@pytest.mark.parametrize(
    ("storage", "why"),
    [
        ({"place": "s3"}, "storage.s3.bucket"),
        ({"place": "s3", "s3": {"bucket": "one"}}, "storage.s3.region"),
        ({"place": "ftp"}, "storage.place"),
        ({"s3": {"region": "x", "bucket": "No/Bucket"}}, "storage.s3.bucket"),
        ({"s3": {"endpoint": "minio:9000"}}, "storage.s3.endpoint"),
        ({"s3": {"prefix": "/a"}}, "storage.s3.prefix"),
        ({"s3": {"prefix": "a/../b"}}, "storage.s3.prefix"),
        ({"s3": {"access_key_id": "a"}}, "belong together"),
        ({"s3": {"part_bytes": 65536}}, "5242880"),
        ({"s3": {"endpoint": "https://minio.example.com", "part_bytes": 5242879}}, "5242880"),
        ({"s3": {"endpoint": "http://127.0.0.1.example.com", "part_bytes": 65536}}, "5242880"),
        ({"place": "s3", "s3": {"bucket": "one", "region": "x"}, "max_archive_bytes": 90 * 1000**3}, "9000000 or more"),
        ({"place": "s3", "s3": {"bucket": "one", "region": "x"}, "max_file_bytes": 6 * 1024**3}, "max_file_bytes"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(storage: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        load(None, {"storage": storage}, environ={})


async def test_secrets_of_the_bucket_are_not_shown() -> None:
    s3 = {"bucket": "one", "region": "x", "access_key_id": "a", "access_key": "hidden-value"}
    settings = load(None, {"storage": {"place": "s3", "s3": s3}}, environ={})
    assert "hidden-value" not in repr(settings)
