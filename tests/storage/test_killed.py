"""Servers that are killed, or told to stop, while files come: uploads go on, and what was decided is done."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from stationmaster.v1 import storage_pb2

from tests.contract.world import code_of, reason_of
from tests.fixtures.server import ServerProcess, StartServer
from tests.storage.desk import CHUNK, Desk
from tests.storage.places import PART, Site
from tests.waiting import until

DATA = os.urandom(5 * PART + 4321)
HALF = 3 * PART


async def start(server_process: StartServer, url: str, site: Site) -> ServerProcess:
    return await server_process(database_url=url, environment=site.environment())


async def test_an_upload_survives_a_killed_server_and_goes_on_at_its_offset(
    server_process: StartServer, database_url: str, process_site: Site
) -> None:
    first = await start(server_process, database_url, process_site)
    async with first.channel() as channel:
        desk = await Desk.open(channel)
        upload = await desk.break_off("a/b", DATA, after=HALF, keep_open=True)
        await first.kill()
    second = await start(server_process, database_url, process_site)
    async with second.channel() as channel:
        desk = Desk(channel, desk.session)
        found = await desk.upload(upload)
        assert (found.state, found.received_bytes) == (storage_pb2.UPLOAD_STATE_RECEIVING, HALF)
        assert await desk.list() == []
        file = await desk.put("a/b", DATA, upload=upload, offset=HALF)
        assert file.sha256 == hashlib.sha256(DATA).hexdigest()
        assert await desk.get("a/b") == DATA
        info = await desk.info()
        assert (info.used_bytes, info.file_count, info.reserved_bytes) == (len(DATA), 1, 0)
        assert await process_site.everything() == {"a/b"}


async def test_a_server_that_stops_says_so_to_uploads_and_downloads(
    server_process: StartServer, database_url: str, process_site: Site
) -> None:
    server = await start(server_process, database_url, process_site)
    async with server.channel() as channel:
        desk = await Desk.open(channel)
        await desk.put("there", os.urandom(40 * CHUNK))
        upload, going = str(uuid4()), asyncio.Event()
        header = dict[str, Any](size_bytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())

        async def requests() -> AsyncIterator[storage_pb2.UploadFileRequest]:
            pieces = [DATA[at : at + CHUNK] for at in range(0, HALF, CHUNK)]
            async for request in desk.requests("a", pieces, upload, **header):
                yield request
            await going.wait()

        call = desk.stub.UploadFile(requests())
        download = desk.stub.DownloadFile(storage_pb2.DownloadFileRequest(name=desk.name("there")))
        await download.read()

        async def half() -> bool:
            return await desk.received(upload) == HALF

        await until(half)
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call
        assert (code_of(ended.value), reason_of(ended.value)) == ("UNAVAILABLE", "SERVER_STOPPING")
        going.set()
        download.cancel()
        assert await stopping == 0
    second = await start(server_process, database_url, process_site)
    async with second.channel() as channel:
        desk = Desk(channel, desk.session)
        assert (await desk.put("a", DATA, upload=upload, offset=HALF)).size_bytes == len(DATA)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 8))])
async def test_kills_at_any_time_leave_files_whole_and_counted(
    server_process: StartServer, database_url: str, process_site: Site, seed: int
) -> None:
    """Files are put, moved and deleted while servers are killed: in the end all that was answered is so."""
    server = await start(server_process, database_url, process_site)
    async with server.channel() as channel:
        session = (await Desk.open(channel)).session
    contents = {f"{number}": os.urandom(1000 * (number + 1)) for number in range(8)}
    known: dict[str, bytes] = {}
    for _ in range(3):
        async with server.channel() as channel:
            desk = Desk(channel, session)
            working = asyncio.create_task(work(desk, contents, known))
            await asyncio.sleep(0.05 + 0.07 * seed)
            await server.kill()
            await working
        server = await start(server_process, database_url, process_site)
    connection = await asyncpg.connect(database_url)
    try:

        async def settled() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM file_changes") and not await connection.fetchval(
                "SELECT count(*) FROM workspaces WHERE measure_at IS NOT NULL"
            )

        await until(settled, seconds=60)
    finally:
        await connection.close()
    async with server.channel() as channel:
        desk = Desk(channel, session)
        there = {path: await desk.get(path) for path in await desk.list(recursive=True)}
        for path, data in there.items():
            assert data == contents[path.rpartition("/")[2]]
        for path, data in known.items():
            assert there[path] == data
        info = await desk.info()
        assert (info.used_bytes, info.file_count) == (sum(map(len, there.values())), len(there))


async def work(desk: Desk, contents: dict[str, bytes], known: dict[str, bytes]) -> None:
    """Puts, moves and deletes until the server is gone; `known`: what must be there, as the server has said."""
    while True:
        for name, data in contents.items():
            put, moved, deleted = (f"{folder}/{name}" for folder in "abc")
            for path in (put, moved, deleted):
                known.pop(path, None)
            try:
                await desk.put(put, data)
                known[put] = data
                await desk.put(deleted, data)
                known.pop(put)
                await desk.move(put, moved, overwrite=True)
                known[moved] = data
                await desk.delete(deleted)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return
                # What a server that died was about to do comes first.
                if reason_of(error) not in ("CONCURRENT_CHANGE", "RESOURCE_NOT_FOUND"):
                    raise
