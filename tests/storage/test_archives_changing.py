"""Workspaces that others change while they are archived: what is packed is whole, and what is told is so."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from stationmaster_server.storage.places.local import LocalPlace
from stationmaster_server.storage.places.local_files import LocalReading
from stationmaster_server.storage.places.place import PIECE_BYTES, Listed

from tests.storage.desk import Desk
from tests.storage.test_archives import contents, fill
from tests.storage.test_files import refused
from tests.storage.vault import Vault

MOST = 4 * PIECE_BYTES

pytestmark = pytest.mark.parametrize("place", ["local"], indirect=True)


@pytest.fixture
def storage_settings() -> dict[str, Any]:
    return {"max_archive_bytes": MOST}


@pytest.fixture
def folder(desk: Desk, tmp_path: Path) -> Path:
    return tmp_path / "data" / desk.workspace


@pytest.fixture
def after_listing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something happen once files were listed, before they are read; each page is of one file."""
    monkeypatch.setattr("stationmaster_server.storage.archives.filling._PAGE", 1)
    original: Callable[..., Awaitable[Listed]] = LocalPlace.list

    def arm(happens: Callable[[], None]) -> None:
        async def listed(self: LocalPlace, *args: Any, **more: Any) -> Listed:
            answer = await original(self, *args, **more)
            monkeypatch.setattr(LocalPlace, "list", original)
            happens()
            return answer

        monkeypatch.setattr(LocalPlace, "list", listed)

    return arm


async def test_a_file_that_becomes_a_folder_is_packed_as_one_of_both(
    desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(desk, {"a": b"a file", "b": b"b"})
    original: Callable[..., AsyncGenerator[bytes, None]] = LocalReading.pieces

    async def pieces(self: LocalReading, *args: Any) -> AsyncGenerator[bytes, None]:
        async for piece in original(self, *args):
            yield piece
        monkeypatch.setattr(LocalReading, "pieces", original)
        (folder / "a").unlink()
        (folder / "a").mkdir()
        (folder / "a" / "inner").write_bytes(b"in a folder")

    monkeypatch.setattr("stationmaster_server.storage.archives.filling._PAGE", 1)
    monkeypatch.setattr(LocalReading, "pieces", pieces)
    await Vault(desk).make()
    other = await Desk.open(desk.channel)
    await Vault(other).restore(Vault(desk))
    assert await contents(other) == {"a": b"a file", "b": b"b"}


async def test_a_name_of_which_nothing_was_packed_may_be_a_folder(
    desk: Desk, folder: Path, after_listing: Callable[[Callable[[], None]], None]
) -> None:
    await fill(desk, {"a": b"a file", "b": b"b"})

    def swap() -> None:
        (folder / "a").unlink()
        (folder / "a").mkdir()
        (folder / "a" / "inner").write_bytes(b"in a folder")

    after_listing(swap)
    await Vault(desk).make()
    other = await Desk.open(desk.channel)
    await Vault(other).restore(Vault(desk))
    assert await contents(other) == {"a/inner": b"in a folder", "b": b"b"}


async def test_a_file_that_grew_since_it_was_listed_does_not_pass_the_bound(
    desk: Desk, folder: Path, after_listing: Callable[[Callable[[], None]], None]
) -> None:
    await fill(desk, {"a": b"small"})

    def grow() -> None:
        (folder / "a").write_bytes(bytes(MOST + 1))

    after_listing(grow)
    assert await refused(Vault(desk).make()) == ("FAILED_PRECONDITION", "LIMIT_REACHED")
    assert await Vault(desk).list() == []


async def test_a_file_that_is_gone_in_the_middle_of_reading_leaves_no_half_of_it(
    desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(desk, {"a": bytes(3 * PIECE_BYTES), "b": b"b"})
    original: Callable[..., AsyncGenerator[bytes, None]] = LocalReading.pieces

    async def pieces(self: LocalReading, *args: Any) -> AsyncGenerator[bytes, None]:
        async for piece in original(self, *args):
            yield piece
            raise FileNotFoundError

    with monkeypatch.context() as patched:
        patched.setattr(LocalReading, "pieces", pieces)
        assert await refused(Vault(desk).make()) == ("ABORTED", "CONCURRENT_CHANGE")
    shutil.rmtree(folder)
    assert await Vault(desk).list() == []
