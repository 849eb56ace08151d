"""The workspace: no path leads out of it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stationmaster_server.storage.paths import PathRefused, normalise
from stationmaster_server.storage.workspace import Entry, TooLarge, Workspace

SECRET = b"secret"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace beside a file that nobody may reach."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../outside/secret",
        "a/../../outside/secret",
        "/etc/passwd",
        "//etc/passwd",
        "a/..",
        "a\0b",
        "a\nb",
        "a\\..\\b",
        "C:/windows",
        "cafe\u0301",
        "a\u202eb",
        "a\u200bb",
        "name.",
        " name",
        "a/" * 40 + "b",
        "x" * 300,
        "x/" * 20 + "y" * 1020,
    ],
)
def test_a_path_that_may_escape_is_refused(path: str) -> None:
    with pytest.raises(PathRefused):
        normalise(path)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("", ()),
        (".", ()),
        ("./a//b/", ("a", "b")),
        ("café/Grüße.txt", ("café", "Grüße.txt")),
        ("...a", ("...a",)),
        (".hidden", (".hidden",)),
    ],
)
def test_a_plain_path_is_taken_apart(path: str, parts: tuple[str, ...]) -> None:
    assert normalise(path) == parts


@given(st.text(max_size=40))
@example("a/./../b")
def test_what_is_taken_apart_stays_inside(path: str) -> None:
    try:
        parts = normalise(path)
    except PathRefused:
        return
    root = "/root/of/workspace"
    assert os.path.normpath(os.path.join(root, *parts)).startswith(root)  # noqa: PTH118 - text only
    assert all(part not in ("", ".", "..") and "/" not in part and "\0" not in part for part in parts)


@given(st.lists(st.sampled_from(["..", ".", "a", "link", "outside", "secret", "", "/", "\0"]), max_size=8))
def test_no_path_reads_what_is_outside(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    base = tmp_path_factory.mktemp("base")
    (base / "secret").write_bytes(SECRET)
    (base / "work" / "a").mkdir(parents=True)
    (base / "work" / "link").symlink_to(base)
    (base / "work" / "a" / "secret").symlink_to(base / "secret")
    workspace = Workspace(base / "work")
    with suppress(PathRefused, FileNotFoundError):
        assert workspace.read("/".join(parts), 100) != SECRET
    with suppress(PathRefused):
        workspace.write("/".join(parts), b"changed")
    assert (base / "secret").read_bytes() == SECRET
    assert {entry.name for entry in base.iterdir()} == {"secret", "work"}


def test_what_is_written_is_read(root: Path) -> None:
    workspace = Workspace(root)
    workspace.write("a/b/c.txt", b"one")
    workspace.write("a/b/c.txt", b"two")
    assert workspace.read("a/b/c.txt", 100) == b"two"
    assert list(workspace.walk("")) == [Entry("a", None), Entry("a/b", None), Entry("a/b/c.txt", 3)]


def test_a_workspace_is_made_when_it_is_first_written_to(tmp_path: Path) -> None:
    Workspace(tmp_path / "new").write("a", b"x")
    assert (tmp_path / "new" / "a").read_bytes() == b"x"


@pytest.mark.parametrize("target", ["../outside", "/etc", "a"])
def test_links_are_not_followed_not_listed_and_not_replaced(root: Path, target: str) -> None:
    (root / "a").mkdir()
    (root / "link").symlink_to(target)
    workspace = Workspace(root)
    for path in ("link", "link/secret", "link/passwd"):
        with pytest.raises(PathRefused):
            workspace.read(path, 100)
        with pytest.raises(PathRefused):
            workspace.write(path, b"x")
    assert [entry.path for entry in workspace.entries("")] == ["a"]
    with pytest.raises(PathRefused):
        list(workspace.entries("link"))


def test_a_second_name_of_a_file_outside_is_refused(root: Path) -> None:
    os.link(root.parent / "outside" / "secret", root / "inside")
    with pytest.raises(PathRefused):
        Workspace(root).read("inside", 100)
    with pytest.raises(PathRefused):
        Workspace(root).write("inside", b"x")


def test_pipes_are_refused_and_do_not_block(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(PathRefused):
        Workspace(root).read("pipe", 100)
    with pytest.raises(PathRefused):
        Workspace(root).write("pipe", b"x")


def test_folders_are_no_files(root: Path) -> None:
    (root / "folder").mkdir()
    (root / "file").write_bytes(b"x")
    for refused in (
        lambda: Workspace(root).read("folder", 100),
        lambda: Workspace(root).write("folder", b"x"),
        lambda: Workspace(root).write("file/below", b"x"),
        lambda: Workspace(root).write("", b"x"),
        lambda: list(Workspace(root).entries("file")),
    ):
        with pytest.raises(PathRefused):
            refused()


def test_a_file_that_is_too_large_is_refused(root: Path) -> None:
    (root / "large").write_bytes(b"x" * 11)
    assert Workspace(root).read("large", 11) == b"x" * 11
    with pytest.raises(TooLarge):
        Workspace(root).read("large", 10)


def test_a_failed_write_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        Workspace(root).write("file", b"x")
    assert list(root.iterdir()) == []


def test_a_racing_link_is_never_read_through(root: Path) -> None:
    """A folder and a link to the outside take turns under one name: what is read is inside, or nothing."""
    (root / "real").mkdir()
    (root / "real" / "secret").write_bytes(b"inside")
    (root / "trap").symlink_to(root.parent / "outside")

    def swap() -> None:
        for name in ("real", "trap"):
            (root / name).rename(root / "here")
            (root / "here").rename(root / name)

    seen = set()
    with racing(swap):
        for _ in range(3_000):
            with suppress(PathRefused, FileNotFoundError):
                seen.add(Workspace(root).read("here/secret", 100))
    assert seen <= {b"inside"}


def test_a_racing_link_is_never_written_through(root: Path) -> None:
    """A link to the outside comes and goes where a folder is to be made."""
    here = root / "here"

    def swap() -> None:
        try:
            here.symlink_to(root.parent / "outside")
            here.unlink()
        except FileExistsError:
            shutil.rmtree(here, ignore_errors=True)

    with racing(swap):
        for _ in range(3_000):
            with suppress(PathRefused, FileNotFoundError):
                Workspace(root).write("here/new", b"mine")
    assert [entry.name for entry in (root.parent / "outside").iterdir()] == ["secret"]


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


def test_a_folder_is_removed_with_all_that_is_in_it_and_nothing_that_links_in_it_lead_to(root: Path) -> None:
    workspace = Workspace(root)
    workspace.write("exports/one/deep/file", b"a")
    workspace.write("exports/two", b"b")
    (root / "exports" / "one" / "link").symlink_to(root.parent / "outside")
    assert workspace.remove_folder("exports/one")
    assert [entry.path for entry in workspace.walk("")] == ["exports", "exports/two"]
    assert (root.parent / "outside" / "secret").read_bytes() == SECRET


@pytest.mark.parametrize("path", ["missing", "missing/one", "file", "link", "link/inner"])
def test_what_is_no_folder_of_the_workspace_is_not_removed(root: Path, path: str) -> None:
    workspace = Workspace(root)
    workspace.write("file", b"a")
    (root.parent / "outside" / "inner").mkdir()
    (root / "link").symlink_to(root.parent / "outside")
    assert not workspace.remove_folder(path)
    assert (root / "file").exists()
    assert (root.parent / "outside" / "inner").exists()
