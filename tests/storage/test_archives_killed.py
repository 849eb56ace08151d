"""Servers that are killed while they archive or restore: it comes whole or not at all, and nothing is left over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest

from tests.fixtures.server import ServerProcess, StartServer
from tests.storage.desk import Desk
from tests.storage.halting import Halt, halting
from tests.storage.places import Site
from tests.storage.test_archives import contents
from tests.storage.vault import Vault
from tests.waiting import until

LARGE = os.urandom(40 * 1024 * 1024)
SMALL = {f"small/{number}": os.urandom(100) for number in range(300)}
HALF = "NEW.state = 'MAKING' AND NEW.reserved_bytes > 20000000"
BEGUN = "NEW.state = 'MAKING' AND NEW.reserved_bytes > 0"
LEFT = {
    "archives": "SELECT count(*) FROM archives WHERE state <> 'READY'",
    "uploads": "SELECT count(*) FROM uploads",
    "changes": "SELECT count(*) FROM file_changes",
    "batches": "SELECT count(*) FROM file_batches WHERE leased_until IS NOT NULL",
}


async def start(server_process: StartServer, url: str, site: Site) -> ServerProcess:
    environment = site.environment() | {"STATIONMASTER_STORAGE__UPLOAD_RETENTION": "2s"}
    return await server_process(database_url=url, environment=environment)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def kill_in(server: ServerProcess, halt: Halt, call: Any) -> None:
    """Kill a server in the middle of a call."""
    task = asyncio.ensure_future(call)
    await halt.reached()
    assert not task.done()
    await server.kill()
    await asyncio.gather(task, return_exceptions=True)


async def settled(url: str) -> None:
    """Wait until nothing is under way any more."""
    async with connected(url) as connection:

        async def nothing() -> bool:
            return not any([await connection.fetchval(sql) for sql in LEFT.values()])

        await until(nothing, seconds=90)


async def fill(folder: Path, desk: Desk) -> dict[str, bytes]:
    """Files as an agent leaves them, the large one last."""
    files = {**SMALL, "z": LARGE}
    root = folder / "workspaces" / desk.workspace.partition("/")[2]
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return files


async def reserved(desk: Desk) -> int:
    info = await desk.info()
    usage = await desk.usage(info.owner)
    return usage.reserved_bytes + info.reserved_bytes


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_an_archive_whose_server_is_killed_leaves_nothing(
    server_process: StartServer, database_url: str, process_site: Site, data_folder: Path
) -> None:
    server = await start(server_process, database_url, process_site)
    async with server.channel() as channel:
        desk = await Desk.open(channel)
        files = await fill(data_folder, desk)
        request = str(uuid4())
        async with halting(database_url, "UPDATE ON archives", HALF) as halt:
            await kill_in(server, halt, Vault(desk).make(request_id=request))
    server = await start(server_process, database_url, process_site)
    async with server.channel() as channel:
        desk = Desk(channel, desk.session)
        assert await Vault(desk).list() == []
        archive = await Vault(desk).make(request_id=request)
        assert await Vault(desk).list() == [archive]
        await Vault(desk).delete()
        await settled(database_url)
        assert await process_site.everything() == set(files)
        assert await reserved(desk) == 0


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize(
    ("change", "row"),
    [
        ("UPDATE ON uploads", "NEW.state = 'FINISHING'"),
        ("DELETE ON file_changes", "OLD.decided"),
        ("DELETE ON file_changes", "OLD.path = 'small/250'"),
        pytest.param("DELETE ON file_changes", "OLD.path = 'z'", marks=pytest.mark.long),
    ],
    ids=["when all files are aside", "before any is counted", "while some are counted", "before the last is counted"],
)
async def test_a_restore_whose_server_is_killed_comes_whole_or_not_at_all(
    server_process: StartServer, database_url: str, process_site: Site, data_folder: Path, change: str, row: str
) -> None:
    server = await start(server_process, database_url, process_site)
    async with server.channel() as channel:
        first = await Desk.open(channel)
        files = await fill(data_folder, first)
        await Vault(first).make()
        second = await Desk.open(channel)
        async with halting(database_url, change, row) as halt:
            await kill_in(server, halt, Vault(second).restore(Vault(first)))
    server = await start(server_process, database_url, process_site)
    async with server.channel() as channel:
        await settled(database_url)
        first, second = Desk(channel, first.session), Desk(channel, second.session)
        there = await contents(second)
        assert there == ({} if "uploads" in change else files)
        assert await reserved(second) == 0
        if not there:
            await Vault(second).restore(Vault(first))

        async def counted() -> bool:
            info = await second.info()
            return (info.used_bytes, info.file_count) == (sum(map(len, files.values())), len(files))

        await until(counted, seconds=60)
        assert {path for path in await process_site.everything() if path.startswith(".uploads")} == set()


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_caller_that_goes_away_leaves_nothing(
    server_process: StartServer, database_url: str, process_site: Site, data_folder: Path
) -> None:
    server = await start(server_process, database_url, process_site)
    async with server.channel() as channel:
        desk = await Desk.open(channel)
        files = await fill(data_folder, desk)
        async with halting(database_url, "UPDATE ON archives", BEGUN) as halt:
            task = asyncio.create_task(Vault(desk).make())
            await halt.reached()
            task.cancel()
            with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
                await task
        await settled(database_url)
        assert await Vault(desk).list() == []
        assert await process_site.everything() == set(files)
        assert await reserved(desk) == 0


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_server_that_stops_leaves_no_half_archive(
    server_process: StartServer, database_url: str, process_site: Site, data_folder: Path
) -> None:
    environment = process_site.environment() | {"STATIONMASTER_SERVER__SHUTDOWN_GRACE": "100ms"}
    server = await server_process(database_url=database_url, environment=environment)
    async with server.channel() as channel:
        desk = await Desk.open(channel)
        files = await fill(data_folder, desk)
        async with halting(database_url, "UPDATE ON archives", BEGUN) as halt:
            task = asyncio.create_task(Vault(desk).make())
            await halt.reached()
            assert await server.stop() == 0
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await task
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        async with connected(database_url) as connection:
            assert await connection.fetchval("SELECT count(*) FROM archives") == 0
        assert await process_site.everything() == set(files)
