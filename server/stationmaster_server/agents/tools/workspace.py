"""The files of a session's workspace, by relative paths that cannot lead out of it.

Every component of a path is opened by its parent's descriptor without following links, so that what was checked is what
is used: a link that appears meanwhile is refused, not followed.
"""

from __future__ import annotations

import os
import shutil
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
MAX_DEPTH = 32
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe or device must not block the thread that opens it; what it is, is looked at afterwards.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class PathRefused(Exception):
    """The path is not one of the workspace's, or what lies there is not a plain file or folder."""


class TooLarge(Exception):
    """The file is larger than the limit."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file (`size_bytes`) or folder (None) of the workspace."""

    path: str
    size_bytes: int | None


def split(path: str) -> tuple[str, ...]:
    """The components of a relative path; none for the workspace itself (`.` or empty).

    Raises:
        PathRefused: It is absolute, leads upwards, is too long or holds characters that names must not have.
    """
    if "\0" in path or any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in path):
        raise PathRefused("a path must not hold control or invisible characters")
    if path.startswith("/") or "\\" in path or (len(path) > 1 and path[1] == ":"):
        raise PathRefused("a path must be relative, with / between its parts")
    if unicodedata.normalize("NFC", path) != path:
        raise PathRefused("a path must be in Unicode normal form C")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise PathRefused("a path must not hold ..")
    if any(part != part.strip() or part.endswith(".") for part in parts):
        raise PathRefused("a name must not begin or end with a space, nor end with a dot")
    if len(parts) > MAX_DEPTH or len(path.encode()) > MAX_PATH_BYTES:
        raise PathRefused("the path is too long")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise PathRefused("a name in the path is too long")
    return parts


class Workspace:
    """A folder whose path is trusted, unlike everything below it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, limit_bytes: int) -> bytes:
        """A file's content.

        Raises:
            PathRefused, TooLarge, FileNotFoundError.
        """
        *folders, name = self._named(path)
        with self._folder(folders) as folder, _opened(name, _FILE, folder) as file:
            _require_plain(os.fstat(file), path)
            content = _read(file, limit_bytes + 1)
        if len(content) > limit_bytes:
            raise TooLarge(f"{path} is larger than {limit_bytes} bytes")
        return content

    def write(self, path: str, content: bytes) -> None:
        """Makes or replaces a file at once: readers see the old content or the new, never a part. Makes its folders.

        Raises:
            PathRefused.
        """
        *folders, name = self._named(path)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._folder(folders, make=True) as folder:
            _require_replaceable(name, folder, path)
            aside = f".{uuid4().hex}.part"
            try:
                with _opened(aside, _NEW, folder) as file:
                    _write(file, content)
                os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                _remove_if_there(aside, folder)
                raise

    @contextmanager
    def replacing(self, path: str) -> Iterator[BinaryIO]:
        """A file to write in the body. It takes the place of `path` at the body's end, durably, or not at all.

        Makes its folders. What an earlier process left of such a file is removed.

        Raises:
            PathRefused.
        """
        *folders, name = self._named(path)
        with self._folder(folders, make=True) as folder:
            _require_replaceable(name, folder, path)
            _remove_parts(name, folder)
            aside = f".{name}.{uuid4().hex}.part"
            try:
                with _opened(aside, _NEW, folder) as descriptor:
                    with os.fdopen(os.dup(descriptor), "wb") as file:
                        yield file
                    os.fsync(descriptor)
                os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except BaseException:
                _remove_if_there(aside, folder)
                raise

    def remove_folder(self, path: str) -> bool:
        """Remove a folder with all that is in it, following no link; whether there was one."""
        *folders, name = self._named(path)
        try:
            with self._folder(folders) as folder:
                os.close(_enter(name, folder, make=False))
                shutil.rmtree(name, dir_fd=folder)
        except (FileNotFoundError, PathRefused):
            return False
        return True

    def entries(self, path: str) -> Iterator[Entry]:
        """What lies in a folder, by name; links and devices are left out.

        Raises:
            PathRefused, FileNotFoundError.
        """
        parts = split(path)
        with self._folder(parts) as folder:
            with os.scandir(folder) as found:
                names = sorted(entry.name for entry in found)
            for name in names:
                entry = _entry("/".join((*parts, name)), name, folder)
                if entry is not None:
                    yield entry

    def walk(self, path: str, depth: int = MAX_DEPTH) -> Iterator[Entry]:
        """Every file and folder below a folder, each folder before what is in it."""
        for entry in self.entries(path):
            yield entry
            if entry.size_bytes is None and depth > 1:
                try:
                    yield from self.walk(entry.path, depth - 1)
                except (FileNotFoundError, PathRefused):
                    continue  # gone, or swapped, while we walked

    def _named(self, path: str) -> tuple[str, ...]:
        parts = split(path)
        if not parts:
            raise PathRefused("a file's name is needed")
        return parts

    @contextmanager
    def _folder(self, parts: list[str] | tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                inner = _enter(part, descriptor, make=make)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


def _enter(name: str, parent: int, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except (NotADirectoryError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise PathRefused(f"{name} is not a folder of the workspace") from None


@contextmanager
def _opened(name: str, flags: int, folder: int) -> Iterator[int]:
    try:
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:
        # A link (ELOOP), a socket or a device without its driver (ENXIO), no permission.
        raise PathRefused(f"{name} is not a plain file of the workspace") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _require_plain(status: os.stat_result, path: str) -> None:
    # A second name of the same file may lie anywhere on the disk.
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise PathRefused(f"{path} is not a plain file of the workspace")


def _require_replaceable(name: str, folder: int, path: str) -> None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    _require_plain(status, path)


def _entry(path: str, name: str, folder: int) -> Entry | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, None)
    return Entry(path, status.st_size) if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else None


def _read(descriptor: int, limit: int) -> bytes:
    chunks: list[bytes] = []
    while limit > 0 and (chunk := os.read(descriptor, min(limit, 1 << 20))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _remove_parts(name: str, folder: int) -> None:
    with os.scandir(folder) as found:
        parts = [entry.name for entry in found if entry.name.startswith(f".{name}.") and entry.name.endswith(".part")]
    for part in parts:
        _remove_if_there(part, folder)


def _remove_if_there(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
