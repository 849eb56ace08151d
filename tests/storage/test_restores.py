"""Restores that are decided: each is made whole, a repeat is told what has become of it, and one lease holds them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
import pytest_asyncio
from stationmaster_server.storage.batches import Batches
from stationmaster_server.storage.places.local import LocalPlace
from stationmaster_server.storage.places.place import Published
from stationmaster_server.storage.places.s3 import S3Place

from tests.contract.world import code_of, reason_of
from tests.storage.desk import Desk
from tests.storage.test_archives import contents, fill
from tests.storage.test_files import audit
from tests.storage.vault import Vault
from tests.waiting import until

FILES = {f"folder/{number}": f"{number}".encode() for number in range(40)}


class Gate:
    """Files come to their places when it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    for kind in (LocalPlace, S3Place):
        original: Callable[..., Awaitable[Published]] = getattr(kind, "publish")  # noqa: B009

        async def publish(self: Any, *args: Any, original: Callable[..., Awaitable[Published]] = original) -> Published:
            gate.reached.set()
            await gate.open.wait()
            return await original(self, *args)

        monkeypatch.setattr(kind, "publish", publish)
    return gate


@pytest_asyncio.fixture
async def tables(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def other_of(desk: Desk, gate: Gate) -> Desk:
    """Another workspace, for the archive of one that has files."""
    gate.open.set()
    await fill(desk, FILES)
    await Vault(desk).make()
    gate.open.clear()
    gate.reached.clear()
    return await Desk.open(desk.channel)


async def test_a_repeat_of_a_restore_waits_until_its_files_are_there(desk: Desk, gate: Gate) -> None:
    other = await other_of(desk, gate)
    request = str(uuid4())
    first = asyncio.create_task(Vault(other).restore(Vault(desk), request_id=request))
    await gate.reached.wait()
    first.cancel()
    repeat = asyncio.create_task(Vault(other).restore(Vault(desk), request_id=request))
    await asyncio.wait([repeat], timeout=1)
    assert not repeat.done()
    assert await contents(other) == {}
    gate.open.set()
    assert (await repeat).file_count == len(FILES)
    assert await contents(other) == FILES


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_repeat_of_a_restore_that_failed_is_told_the_same(
    desk: Desk, gate: Gate, tmp_path: Path, database_url: str, tables: asyncpg.Connection
) -> None:
    other = await other_of(desk, gate)
    request, vault = str(uuid4()), Vault(other)
    first = asyncio.create_task(vault.restore(Vault(desk), request_id=request))
    await gate.reached.wait()
    # A tool of an agent makes a folder where a file is about to come.
    (tmp_path / "data" / other.workspace / "folder" / "7").mkdir(parents=True)
    gate.open.set()
    errors = []
    for call in (first, vault.restore(Vault(desk), request_id=request)):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert await tables.fetchval("SELECT count(*) FROM file_changes") == 0
        errors.append((code_of(error.value), reason_of(error.value), str(error.value.details())))
    assert errors[0] == errors[1]
    code, reason, text = errors[0]
    assert (code, reason) == ("FAILED_PRECONDITION", "FILE_REFUSED")
    assert text.startswith("1 of the files could not")
    assert "folder/7'" in text
    (event,) = [each for each in await audit(database_url, "archive.restore") if each["outcome"] == "failed"]
    assert event["resource"] == other.name("folder/7")
    assert await contents(other) == {path: data for path, data in FILES.items() if path != "folder/7"}
    assert (await other.info()).reserved_bytes == 0


async def test_a_restore_says_that_it_goes_on_in_one_row(
    desk: Desk, gate: Gate, tables: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stationmaster_server.storage.batches._HEARTBEAT", 0.05)
    other = await other_of(desk, gate)
    restoring = asyncio.create_task(Vault(other).restore(Vault(desk)))
    await gate.reached.wait()
    rows = (
        "SELECT (SELECT array_agg(xmin::text ORDER BY id) FROM file_changes),"
        " (SELECT array_agg(xmin::text ORDER BY id) FROM uploads WHERE state = 'FINISHING')"
    )
    before = await tables.fetchrow(rows)
    assert before is not None
    assert [len(each) for each in before] == [len(FILES)] * 2
    for _ in range(3):
        lease = await tables.fetchval("SELECT max(leased_until) FROM file_batches")

        async def extended(lease: Any = lease) -> bool:
            return bool(await tables.fetchval("SELECT max(leased_until) > $1 FROM file_batches", lease))

        await until(extended)
    assert await tables.fetchrow(rows) == before
    gate.open.set()
    await restoring
    assert await tables.fetchval("SELECT count(*) FROM file_batches WHERE leased_until IS NOT NULL") == 0


async def test_a_restore_that_its_server_left_is_made_by_another_some_files_at_once(
    desk: Desk, gate: Gate, tables: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await other_of(desk, gate)
    with monkeypatch.context() as patched:
        gone = asyncio.Event()

        async def die(*_: object) -> None:
            gone.set()
            await asyncio.Event().wait()

        patched.setattr(Batches, "_make", die)
        request = str(uuid4())
        first = asyncio.create_task(Vault(other).restore(Vault(desk), request_id=request))
        await gone.wait()
    first.cancel()
    gate.open.set()
    await tables.execute("UPDATE file_batches SET leased_until = now() - interval '1 second'")
    await Vault(other).restore(Vault(desk), request_id=request)
    assert await contents(other) == FILES

    async def counted() -> bool:
        info = await other.info()
        return (info.used_bytes, info.file_count, info.reserved_bytes) == (
            sum(map(len, FILES.values())),
            len(FILES),
            0,
        )

    await until(counted)
