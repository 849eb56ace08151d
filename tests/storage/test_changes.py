"""Changes of files: each is made once and told of, wherever the server that decided it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from stationmaster_server.storage.places.local import LocalPlace
from stationmaster_server.storage.places.place import Home, Names, Place, Published
from stationmaster_server.storage.places.s3 import S3Place

from tests.fixtures.server import RunningServer
from tests.storage.desk import Desk
from tests.storage.places import Site
from tests.storage.test_files import audit, refused
from tests.waiting import until

PLACES: dict[str, type[Place]] = {"local": LocalPlace, "s3": S3Place}


@pytest.fixture(params=["before", "after"])
def moment(request: pytest.FixtureRequest) -> str:
    """When a server dies: before it touches the place, or after it did and before it could say so."""
    return str(request.param)


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch, moment: str, desk: Desk, place: str) -> Iterator[Callable[[str], None]]:
    """Makes the next call of a method of the place the last thing that its server does."""
    over, kind = asyncio.Event(), PLACES[place]

    def arm(name: str) -> None:
        original: Callable[..., Awaitable[Any]] = getattr(kind, name)

        async def die(self: Place, *args: Any) -> Any:
            monkeypatch.setattr(kind, name, original)
            if moment == "after":
                await original(self, *args)
            await over.wait()
            raise asyncio.CancelledError

        monkeypatch.setattr(kind, name, die)

    yield arm
    over.set()


@pytest.fixture
def no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease of a dead server is not extended."""
    monkeypatch.setattr("stationmaster_server.storage.changes._HEARTBEAT", 3600.0)


async def decided(url: str) -> bool:
    """Whether a change is decided and not made."""
    connection = await asyncpg.connect(url)
    try:
        return bool(await connection.fetchval("SELECT count(*) FROM file_changes WHERE decided"))
    finally:
        await connection.close()


async def left_alone(url: str, call: Any) -> None:
    """Wait until a change is decided, go away, and let its lease end."""
    await until(partial(decided, url))
    call.cancel()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("UPDATE file_changes SET leased_until = now() - interval '1 second'")

        async def made() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM file_changes")

        await until(made)
    finally:
        await connection.close()


pytestmark = pytest.mark.usefixtures("no_heartbeat")


async def totals(desk: Desk) -> tuple[int, int, int]:
    info = await desk.info()
    return info.used_bytes, info.file_count, info.reserved_bytes


async def counted(desk: Desk, *expected: int) -> None:
    """Wait until a workspace holds so much, as far as is counted."""

    async def right() -> bool:
        return await totals(desk) == expected

    await until(right)


async def test_a_file_that_was_decided_comes_to_its_place(
    desk: Desk, database_url: str, dying: Callable[[str], None], myself: tuple[str, str]
) -> None:
    await desk.put("a", b"before")
    dying("publish")
    upload = "11111111-1111-4111-8111-111111111111"
    await left_alone(database_url, asyncio.create_task(desk.put("a", b"12345678", upload=upload)))
    assert await desk.get("a") == b"12345678"
    assert (await desk.upload(upload)).file == await desk.stat("a")
    assert (await desk.stat("a")).sha256
    await counted(desk, 8, 1, 0)
    assert (await desk.usage(myself[0])).reserved_bytes == 0
    assert len(await audit(database_url, "file.put")) == 2


async def test_a_file_that_another_server_has_brought_to_its_place_meanwhile_is_there(
    desk: Desk, database_url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.put("a", b"before")
    original: Callable[..., Awaitable[Published]] = getattr(PLACES[place], "publish")  # noqa: B009

    async def after_another(self: Place, *args: Any) -> Published:
        await original(self, *args)
        return await original(self, *args)

    monkeypatch.setattr(PLACES[place], "publish", after_another)
    assert (await desk.put("a", b"12345678")).size_bytes == 8
    await counted(desk, 8, 1, 0)
    assert [each["outcome"] for each in await audit(database_url, "file.put")] == ["allowed", "allowed"]


async def test_a_file_that_was_to_be_deleted_goes(desk: Desk, database_url: str, dying: Callable[[str], None]) -> None:
    await desk.put("a", b"before")
    dying("remove")
    await left_alone(database_url, asyncio.create_task(desk.delete("a")))
    assert await desk.list() == []
    await counted(desk, 0, 0, 0)
    assert len(await audit(database_url, "file.delete")) == 1


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_what_has_come_since_is_not_deleted(
    desk: Desk, database_url: str, dying: Callable[[str], None], stored_at: RunningServer
) -> None:
    await desk.put("a", b"before")
    dying("remove")
    deleting = asyncio.create_task(desk.delete("a"))
    workspace = stored_at.settings.data_folder / "workspaces" / desk.workspace.partition("/")[2]
    await until(partial(decided, database_url))
    await asyncio.to_thread(write, workspace / "a", b"an agent's")
    await left_alone(database_url, deleting)
    assert await desk.get("a") == b"an agent's"
    await counted(desk, len(b"an agent's"), 1, 0)


def write(path: Path, data: bytes) -> None:
    aside = path.with_name("aside")
    aside.write_bytes(data)
    aside.rename(path)


async def test_a_file_that_was_to_move_moves(desk: Desk, database_url: str, dying: Callable[[str], None]) -> None:
    file = await desk.put("a", b"before")
    await desk.put("b", b"other")
    dying("move")
    await left_alone(database_url, asyncio.create_task(desk.move("a", "b", overwrite=True)))
    assert await desk.list() == ["b"]
    assert (await desk.stat("b")).sha256 == file.sha256
    await counted(desk, 6, 1, 0)


@pytest.mark.parametrize("moment", ["before"], indirect=True)
async def test_nobody_else_touches_a_path_until_a_change_is_made(
    desk: Desk, database_url: str, dying: Callable[[str], None]
) -> None:
    await desk.put("a/b", b"before")
    await desk.put("c", b"x")
    dying("move")
    moving = asyncio.create_task(desk.move("a/b", "d/e"))
    await until(partial(decided, database_url))
    for call in (
        desk.put("a/b", b"x"),
        desk.put("a", b"x"),
        desk.put("d/e/f", b"x"),
        desk.delete("a/b"),
        desk.move("c", "d/e"),
    ):
        assert await refused(call) == ("ABORTED", "CONCURRENT_CHANGE")
    await desk.put("d/f", b"x")
    await left_alone(database_url, moving)
    assert sorted(await desk.list(recursive=True)) == ["c", "d/e", "d/f"]


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_what_turns_out_not_to_be_possible_is_undone_and_told(
    desk: Desk, database_url: str, site: Site, monkeypatch: pytest.MonkeyPatch, myself: tuple[str, str]
) -> None:
    """A folder appears where the file was to be, between the look and the change."""
    original = LocalPlace.publish

    async def publish(self: LocalPlace, home: Home, upload_id: UUID, names: Names) -> Published:
        (self._root / str(home.session_id) / "a" / "in").mkdir(parents=True)
        return await original(self, home, upload_id, names)

    monkeypatch.setattr(LocalPlace, "publish", publish)
    assert await refused(desk.put("a", b"x")) == ("FAILED_PRECONDITION", "FILE_REFUSED")
    assert await totals(desk) == (0, 0, 0)
    assert (await desk.usage(myself[0])).reserved_bytes == 0
    assert await site.everything() == set()
    outcomes = [event["outcome"] for event in await audit(database_url, "file.put")]
    assert outcomes == ["allowed", "failed"]


async def test_a_caller_that_goes_away_does_not_stop_what_was_decided(
    desk: Desk, database_url: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    kind, gate = PLACES[place], asyncio.Event()
    original = kind.remove

    async def remove(self: Place, home: Home, names: Names) -> int | None:
        await gate.wait()
        return await original(self, home, names)

    await desk.put("a", b"x")
    monkeypatch.setattr(kind, "remove", remove)
    deleting = asyncio.create_task(desk.delete("a"))
    await until(partial(decided, database_url))
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    gate.set()
    await counted(desk, 0, 0, 0)
    with pytest.raises(grpc.aio.AioRpcError):
        await desk.stat("a")
