"""Uploads that broke off: gone on with where they were, by nobody twice, and in the end given up."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from stationmaster.v1 import storage_pb2

from tests.storage.desk import CHUNK, Desk
from tests.storage.places import PART, Site
from tests.storage.test_files import audit, refused
from tests.waiting import until

DATA = os.urandom(3 * PART + 1234)
HALF = 2 * PART


async def test_an_upload_that_broke_off_goes_on_where_it_was(desk: Desk, myself: tuple[str, str]) -> None:
    upload = await desk.break_off("a", DATA, after=HALF)
    found = await desk.upload(upload)
    assert (found.state, found.received_bytes) == (storage_pb2.UPLOAD_STATE_RECEIVING, HALF)
    assert (found.file_name, found.size_bytes) == (desk.name("a"), len(DATA))
    assert await desk.list() == []
    assert (await desk.usage(myself[0])).reserved_bytes == len(DATA)
    file = await desk.put("a", DATA, upload=upload, offset=HALF)
    assert file.sha256 == hashlib.sha256(DATA).hexdigest()
    assert await desk.get("a") == DATA
    usage = await desk.usage(myself[0])
    assert (usage.used_bytes, usage.reserved_bytes) == (len(DATA), 0)


async def test_an_upload_that_is_done_answers_a_repeat_with_its_file(desk: Desk, database_url: str) -> None:
    upload = str(uuid4())
    file = await desk.put("a", DATA, upload=upload)
    found = await desk.upload(upload)
    assert (found.state, found.file) == (storage_pb2.UPLOAD_STATE_DONE, file)
    assert await desk.put("a", DATA, upload=upload) == file
    assert len(await audit(database_url, "file.put")) == 1
    assert await refused(desk.put("b", DATA, upload=upload)) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert await refused(desk.put("a", b"other", upload=upload)) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert await refused(desk.cancel(upload)) == ("ABORTED", "CONCURRENT_CHANGE")


async def test_an_upload_goes_on_only_where_it_is_or_begins_anew(desk: Desk) -> None:
    upload = await desk.break_off("a", DATA, after=HALF)
    for offset in (HALF - 1, HALF + 1, PART):
        assert await refused(desk.put("a", DATA, upload=upload, offset=offset)) == (
            "FAILED_PRECONDITION",
            "UPLOAD_OFFSET",
        )
    assert (await desk.put("a", DATA, upload=upload)).size_bytes == len(DATA)
    assert await desk.get("a") == DATA
    assert await refused(desk.put("b", DATA, upload=str(uuid4()), offset=HALF)) == (
        "FAILED_PRECONDITION",
        "UPLOAD_OFFSET",
    )


async def test_without_an_id_what_breaks_off_leaves_nothing(desk: Desk, myself: tuple[str, str], site: Site) -> None:
    arrived = asyncio.Event()

    async def requests() -> AsyncIterator[storage_pb2.UploadFileRequest]:
        async for request in desk.requests("a", [DATA[:CHUNK], DATA[CHUNK:HALF]], size_bytes=len(DATA)):
            yield request
        arrived.set()
        await asyncio.Event().wait()

    call = desk.stub.UploadFile(requests())

    async def reserved() -> bool:
        return bool((await desk.usage(myself[0])).reserved_bytes)

    await until(reserved)
    await arrived.wait()
    call.cancel()

    async def free() -> bool:
        return not (await desk.usage(myself[0])).reserved_bytes

    await until(free)
    assert await desk.list() == []
    assert await site.everything() == set()


async def test_a_stream_that_comes_again_takes_the_upload_over(desk: Desk) -> None:
    upload, stuck = str(uuid4()), asyncio.Event()
    header = dict[str, Any](size_bytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    pieces = [DATA[at : at + CHUNK] for at in range(0, HALF, CHUNK)]

    async def requests() -> AsyncIterator[storage_pb2.UploadFileRequest]:
        async for request in desk.requests("a", pieces, upload, **header):
            yield request
        await stuck.wait()

    first = desk.stub.UploadFile(requests())

    async def half() -> bool:
        return await desk.received(upload) == HALF

    await until(half)
    file = await desk.put("a", DATA, upload=upload, offset=HALF)
    assert file.sha256 == hashlib.sha256(DATA).hexdigest()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await first
    assert ended.value.code() is grpc.StatusCode.ABORTED
    stuck.set()


async def test_an_upload_that_failed_for_good_may_be_corrected_under_its_id(desk: Desk) -> None:
    upload = str(uuid4())
    wrong = hashlib.sha256(b"other").hexdigest()
    assert await refused(desk.put("a", DATA, upload=upload, sha256=wrong)) == ("INVALID_ARGUMENT", "CHECKSUM_MISMATCH")
    assert (await desk.put("a", DATA, upload=upload)).size_bytes == len(DATA)


async def test_an_upload_that_is_cancelled_leaves_nothing(
    desk: Desk, myself: tuple[str, str], site: Site, database_url: str
) -> None:
    upload = await desk.break_off("a", DATA, after=HALF)
    await desk.cancel(upload)
    assert await refused(desk.upload(upload)) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    assert await refused(desk.cancel(upload)) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    assert (await desk.usage(myself[0])).reserved_bytes == 0
    assert await site.everything() == set()
    (event,) = await audit(database_url, "upload.cancel")
    assert event["resource"] == f"{desk.workspace}/uploads/{upload}"


class TestExpiry:
    @pytest.fixture
    def storage_settings(self) -> dict[str, Any]:
        return {"upload_retention": "3s"}

    async def test_an_upload_that_nobody_goes_on_with_is_given_up_and_its_room_free(
        self, desk: Desk, myself: tuple[str, str], site: Site, database_url: str
    ) -> None:
        upload = await desk.break_off("a", DATA, after=HALF)
        done = str(uuid4())
        await desk.put("b", b"x", upload=done)

        async def free() -> bool:
            return not (await desk.usage(myself[0])).reserved_bytes

        await until(free)
        for each in (upload, done):

            async def forgotten(each: str = each) -> bool:
                try:
                    await desk.upload(each)
                except grpc.aio.AioRpcError:
                    return True
                return False

            await until(forgotten)
        assert await site.everything() == {"b"}
        (event,) = await audit(database_url, "upload.expire")
        assert event["resource"] == f"{desk.workspace}/uploads/{upload}"
        assert await refused(desk.put("a", DATA, upload=upload, offset=HALF)) == (
            "FAILED_PRECONDITION",
            "UPLOAD_OFFSET",
        )
