"""The files of one folder, for whoever works in it from inside: agents' tools, and kinds of tasks.

Paths cannot lead out of it (`paths`, `places.folders`). Blocks: to be called in a thread.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from stationmaster_server.storage.paths import MAX_DEPTH, PathRefused, normalise
from stationmaster_server.storage.places import folders


class TooLarge(Exception):
    """The file is larger than the limit."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file (`size_bytes`) or folder (None) of the workspace."""

    path: str
    size_bytes: int | None


class Workspace:
    """A folder whose path is trusted, unlike everything below it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, limit_bytes: int) -> bytes:
        """A file's content.

        Raises:
            PathRefused, TooLarge, FileNotFoundError.
        """
        *names, name = _named(path)
        with folders.folder(self._root, names) as folder, folders.opened(name, folders.READ, folder) as file:
            folders.require_plain(os.fstat(file), path)
            content = _read(file, limit_bytes + 1)
        if len(content) > limit_bytes:
            raise TooLarge(f"{path} is larger than {limit_bytes} bytes")
        return content

    def write(self, path: str, content: bytes) -> None:
        """Makes or replaces a file at once: readers see the old content or the new, never a part. Makes its folders.

        Raises:
            PathRefused.
        """
        *names, name = _named(path)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with folders.folder(self._root, names, make=True) as folder:
            folders.plain(name, folder, path)
            aside = f".{uuid4().hex}.part"
            try:
                with folders.opened(aside, folders.NEW, folder) as file:
                    folders.write_all(file, content)
                os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                folders.remove(aside, folder)
                raise

    @contextmanager
    def replacing(self, path: str) -> Iterator[BinaryIO]:
        """A file to write in the body. It takes the place of `path` at the body's end, durably, or not at all.

        Makes its folders. What an earlier process left of such a file is removed.

        Raises:
            PathRefused.
        """
        *names, name = _named(path)
        with folders.folder(self._root, names, make=True) as folder:
            folders.plain(name, folder, path)
            _remove_parts(name, folder)
            aside = f".{name}.{uuid4().hex}.part"
            try:
                with folders.opened(aside, folders.NEW, folder) as descriptor:
                    with os.fdopen(os.dup(descriptor), "wb") as file:
                        yield file
                    os.fsync(descriptor)
                os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except BaseException:
                folders.remove(aside, folder)
                raise

    def remove_folder(self, path: str) -> bool:
        """Remove a folder with all that is in it, following no link; whether there was one."""
        *names, name = _named(path)
        try:
            with folders.folder(self._root, names) as folder:
                os.close(folders.enter(name, folder))
                shutil.rmtree(name, dir_fd=folder)
        except (FileNotFoundError, PathRefused):
            return False
        return True

    def entries(self, path: str) -> Iterator[Entry]:
        """What lies in a folder, by name; links and devices are left out.

        Raises:
            PathRefused, FileNotFoundError.
        """
        yield from self._entries(normalise(path))

    def walk(self, path: str) -> Iterator[Entry]:
        """Every file and folder below a folder, each folder before what is in it."""
        yield from self._walk(normalise(path), MAX_DEPTH)

    def _entries(self, parts: Sequence[str]) -> Iterator[Entry]:
        with folders.folder(self._root, parts) as folder:
            for name in folders.names_in(folder):
                status = folders.look(name, folder)
                if status is not None:
                    size = None if stat.S_ISDIR(status.st_mode) else status.st_size
                    yield Entry("/".join((*parts, name)), size)

    def _walk(self, parts: Sequence[str], depth: int) -> Iterator[Entry]:
        for entry in self._entries(parts):
            yield entry
            if entry.size_bytes is None and depth > 1:
                try:
                    yield from self._walk(entry.path.split("/"), depth - 1)
                except (FileNotFoundError, PathRefused):
                    continue  # gone, or swapped, while we walked


def _named(path: str) -> tuple[str, ...]:
    names = normalise(path)
    if not names:
        raise PathRefused("a file's name is needed")
    return names


def _read(descriptor: int, limit: int) -> bytes:
    chunks: list[bytes] = []
    while limit > 0 and (chunk := os.read(descriptor, min(limit, 1 << 20))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def _remove_parts(name: str, folder: int) -> None:
    for part in folders.names_in(folder):
        if part.startswith(f".{name}.") and part.endswith(".part"):
            folders.remove(part, folder)
