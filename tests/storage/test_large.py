"""A gibibyte up and down, with a server that is killed on both ways: whole in the end, in little memory."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
import psutil
import pytest
from stationmaster.v1 import storage_pb2

from tests.fixtures.server import ServerProcess, StartServer
from tests.storage.desk import Desk
from tests.storage.places import Site
from tests.waiting import until

MIB = 1024 * 1024
SIZES = {"local": 1024 * MIB, "s3": 1024 * MIB}
MOST = 64 * MIB
"""What a server may need beyond what it has when idle."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def block(number: int) -> bytes:
    """A mebibyte of the file, which is nowhere as a whole."""
    return random.Random(number).randbytes(MIB)


@pytest.fixture
def whole(place: str) -> str:
    """The file's checksum."""
    digest = hashlib.sha256()
    for number in range(SIZES[place] // MIB):
        digest.update(block(number))
    return digest.hexdigest()


class Watch:
    """The most memory that a server has had."""

    def __init__(self, server: ServerProcess) -> None:
        self._process = psutil.Process(server.pid)
        self.idle = self.most = self._process.memory_info().rss

    async def look(self) -> None:
        while True:
            self.most = max(self.most, self._process.memory_info().rss)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def watched(server: ServerProcess, desk: Desk) -> AsyncIterator[None]:
    """Fails when the server needs too much in the body, be it killed there or not."""
    await desk.put("warm", b"x" * MIB)
    await desk.get("warm")
    watch = Watch(server)
    task = asyncio.create_task(watch.look())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert watch.most - watch.idle < MOST, f"{(watch.most - watch.idle) / MIB:.0f} MiB above {watch.idle / MIB:.0f}"


async def upload(desk: Desk, upload_id: str, offset: int, size: int, sha256: str) -> storage_pb2.File:
    def pieces() -> Iterator[bytes]:
        for number in range(offset // MIB, size // MIB):
            yield block(number)[offset - number * MIB if number == offset // MIB else 0 :]

    header = dict[str, Any](size_bytes=size, sha256=sha256, offset=offset)
    file: storage_pb2.File = await desk.stub.UploadFile(
        desk.requests("large", pieces(), upload_id, last=True, **header)
    )
    return file


async def test_a_gibibyte_goes_up_and_down_over_killed_servers(
    server_process: StartServer, database_url: str, process_site: Site, place: str, whole: str
) -> None:
    size, upload_id = SIZES[place], str(uuid4())
    environment = {**process_site.environment(), "STATIONMASTER_STORAGE__S3__PART_BYTES": str(8 * MIB)}

    async def start() -> ServerProcess:
        return await server_process(database_url=database_url, environment=environment)

    server = await start()
    async with server.channel() as channel:
        desk = await Desk.open(channel)
        session = desk.session
        async with watched(server, desk):
            sending = asyncio.create_task(upload(desk, upload_id, 0, size, whole))

            async def half() -> bool:
                return await desk.received(upload_id) >= size // 2

            await until(half, seconds=400)
            await server.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await sending

    server = await start()
    async with server.channel() as channel:
        desk = Desk(channel, session)
        async with watched(server, desk):
            kept = await desk.received(upload_id)
            assert size // 2 <= kept < size
            file = await upload(desk, upload_id, kept, size, whole)
            assert (file.size_bytes, file.sha256) == (size, whole)
        digest, offset = hashlib.sha256(), 0
        request = storage_pb2.DownloadFileRequest(name=desk.name("large"))
        with pytest.raises(grpc.aio.AioRpcError):  # noqa: PT012
            async for piece in desk.stub.DownloadFile(request):
                digest.update(piece.data)
                offset += len(piece.data)
                if offset >= size // 2:
                    await server.kill()

    server = await start()
    async with server.channel() as channel:
        desk = Desk(channel, session)
        async with watched(server, desk):
            request = storage_pb2.DownloadFileRequest(name=desk.name("large"), offset=offset, etag=file.etag)
            async for piece in desk.stub.DownloadFile(request):
                digest.update(piece.data)
        assert digest.hexdigest() == whole
        assert (await desk.info()).used_bytes == size + MIB
        assert await process_site.everything() == {"large", "warm"}
