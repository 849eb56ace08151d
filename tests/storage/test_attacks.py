"""Paths that try to lead out of a workspace: none does, and nothing around it is touched, in every place."""

from __future__ import annotations

import os
import random
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from stationmaster.v1 import storage_pb2

from tests.contract.world import code_of
from tests.promises.refusal import refused as refusal
from tests.storage.desk import Desk
from tests.storage.places import SECRET, Site
from tests.storage.test_files import refused
from tests.storage.test_paths import REFUSED, TAKEN

SENDABLE = {
    path: why for path, why in REFUSED.items() if not any("\ud800" <= character <= "\udfff" for character in path)
}
PIECES = ["..", ".", "a", "b", "secret", "/", "\\", "%2e", "%2f", "\0", "\u2215", "\uff0e", "//", "C:", "con", " "]


def calls(desk: Desk, path: str) -> dict[str, tuple[str, Callable[[], Awaitable[Any]]]]:
    """Every way to name a path: which field has it, and the call."""
    listing = storage_pb2.ListFilesRequest(parent=desk.workspace, folder=path)
    return {
        "stat": ("name", lambda: desk.stat(path)),
        "download": ("name", lambda: desk.pieces(path)),
        "upload": ("header.name", lambda: desk.put(path, b"attack")),
        "delete": ("name", lambda: desk.delete(path)),
        "move from": ("name", lambda: desk.move(path, "elsewhere")),
        "move to": ("destination", lambda: desk.move("inside", path, overwrite=True)),
        "list": ("folder", lambda: desk.stub.ListFiles(listing)),
    }


async def test_no_refused_path_reaches_anything(desk: Desk, site: Site) -> None:
    await desk.put("inside", b"inside")
    await site.surround(desk.workspace)
    before = await site.snapshot()
    wrong = []
    for path, why in SENDABLE.items():
        for name, (field, call) in calls(desk, path).items():
            if not path and name == "list":
                continue  # the workspace itself
            told = await refusal(call())
            reasons = [violation.description for violation in told.details["BadRequest"].field_violations]
            if told.code != "INVALID_ARGUMENT" or field not in told.fields:
                wrong.append(f"{name} {path!r}: {told}")
            elif path and not any(why in reason for reason in reasons):
                wrong.append(f"{name} {path!r}: {reasons}, not {why}")
    assert not wrong, "\n".join(wrong)
    assert await site.snapshot() == before


async def test_every_path_that_is_taken_leads_into_the_workspace(desk: Desk, site: Site) -> None:
    await site.surround(desk.workspace)
    before = await site.snapshot(without=desk.workspace)
    for number, path in enumerate(TAKEN):
        await desk.put(path, f"{number}".encode())
    assert sorted(await desk.list(recursive=True, page_size=7)) == sorted(TAKEN)
    for number, path in enumerate(TAKEN):
        assert await desk.get(path) == f"{number}".encode()
        assert (await desk.stat(path)).name == desk.name(path)
    for path in TAKEN:
        await desk.delete(path)
    assert await desk.list(recursive=True) == []
    assert await site.snapshot(without=desk.workspace) == before


async def test_paths_made_by_chance_stay_inside(desk: Desk, site: Site) -> None:
    await site.surround(desk.workspace)
    before = await site.snapshot(without=desk.workspace)
    chance = random.Random(20261126)
    taken = 0
    for _ in range(300):
        path = "".join(chance.choices(PIECES, k=chance.randint(1, 6)))
        for call in (
            desk.put(path, b"x"),
            desk.get(path),
            desk.move(path, path[::-1], overwrite=True),
            desk.delete(path),
        ):
            with suppress(grpc.aio.AioRpcError):
                assert await call != SECRET
                taken += 1
    assert taken > 10
    assert await site.snapshot(without=desk.workspace) == before


async def test_a_session_does_not_reach_the_files_of_another(desk: Desk, site: Site) -> None:
    other = await Desk.open(desk.channel)
    await other.put("secret", SECRET)
    name = other.workspace.partition("/")[2]
    for path in (f"../{name}/secret", f"..%2f{name}%2fsecret", f"{name}/secret", f"../{other.name('secret')}"):
        code, _ = await refused(desk.get(path))
        assert code in ("INVALID_ARGUMENT", "NOT_FOUND")
    assert await other.get("secret") == SECRET


@pytest.fixture
def agents_folder(site: Site, desk: Desk, tmp_path: Path) -> Path:
    """The folder of a session, in which its agent can make what it likes; beside it something that is not its own."""
    if site.kind != "local":
        pytest.fail("only a disk has links")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    folder = tmp_path / "data" / "workspaces" / desk.workspace.partition("/")[2]
    (folder / "folder").mkdir(parents=True)
    (folder / "inside").write_bytes(b"inside")
    return folder


def snapshot(root: Path) -> dict[str, object]:
    """Every file and folder below it, with contents and times of change."""
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_ctime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [root, *root.rglob("*")]
    }


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("below", [False, True], ids=["itself", "below"])
@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "dangling link", "hard link", "pipe", "socket"])
async def test_links_and_devices_are_neither_read_nor_replaced_nor_listed(
    desk: Desk, agents_folder: Path, tmp_path: Path, kind: str, below: bool
) -> None:
    outside = tmp_path / "outside"
    trap = agents_folder / "trap"
    match kind:
        case "link to a file":
            trap.symlink_to(outside / "secret")
        case "link to a folder":
            trap.symlink_to(outside)
        case "dangling link":
            trap.symlink_to(outside / "new")
        case "hard link":
            os.link(outside / "secret", trap)
        case "pipe":
            os.mkfifo(trap)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                os.chdir(agents_folder)
                bound.bind("trap")
    before = snapshot(outside)
    path = "trap/secret" if below else "trap"
    for name, (_, call) in calls(desk, path).items():
        code, reason = await refused(call())
        assert (code, reason) == ("FAILED_PRECONDITION", "FILE_REFUSED"), name
    assert sorted(await desk.list(recursive=True)) == ["inside"]
    assert sorted(await desk.list()) == ["folder/", "inside"]
    assert trap.is_symlink() or trap.exists()
    assert snapshot(outside) == before
    assert await desk.get("inside") == b"inside"


@contextmanager
def racing(swap: Callable[[], None]) -> Iterator[None]:
    """Does something over and over in another thread."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            swap()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_link_that_comes_and_goes_is_never_followed(desk: Desk, agents_folder: Path, tmp_path: Path) -> None:
    """A folder and a link to the outside take turns under one name, while files are put, read, moved and deleted."""
    outside = tmp_path / "outside"
    here, there = agents_folder / "here", agents_folder / "there"
    (agents_folder / "real").mkdir()
    (agents_folder / "real" / "secret").write_bytes(b"inside")
    (agents_folder / "trap").symlink_to(outside)
    before = snapshot(outside)

    def swap() -> None:
        for name in ("real", "trap"):
            (agents_folder / name).rename(here)
            here.rename(agents_folder / name)
        try:
            there.symlink_to(outside)
            there.unlink()
        except FileExistsError:
            shutil.rmtree(there, ignore_errors=True)

    outcomes: Counter[str] = Counter()
    with racing(swap):
        for _ in range(60):
            for call in (desk.get("here/secret"), desk.put("there/new", b"mine"), desk.move("inside", "there/new")):
                try:
                    answer = await call
                except grpc.aio.AioRpcError as error:
                    outcomes[code_of(error)] += 1
                else:
                    outcomes["OK"] += 1
                    assert answer != SECRET
            with suppress(grpc.aio.AioRpcError):
                await desk.put("inside", b"inside")
    assert set(outcomes) <= {"OK", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "ABORTED"}
    assert snapshot(outside) == before
