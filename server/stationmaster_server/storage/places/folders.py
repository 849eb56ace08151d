"""Folders and files by directory descriptor, never by a path that somebody could swap a part of.

Every name is opened by its parent's descriptor without following links, so that what was checked is what is used: a
link that appears meanwhile is refused, not followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from stationmaster_server.storage.paths import PathRefused

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe or device must not block the thread that opens it; what it is, is looked at afterwards.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# A link, a file where a folder should be and the reverse, a socket, a device without its driver, no permission.
_IN_THE_WAY = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENXIO, errno.EACCES, errno.EPERM}


@contextmanager
def folder(root: Path, names: Sequence[str] = (), *, make: bool = False) -> Iterator[int]:
    """The descriptor of a folder below a root whose own path is trusted, unlike everything below it.

    Raises FileNotFoundError, or PathRefused where a link or a file is in the way.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            inner = enter(name, descriptor, make=make)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def enter(name: str, parent: int, *, make: bool = False) -> int:
    """Open a folder in a folder. Raises FileNotFoundError, PathRefused."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        raise PathRefused(f"{name} is not a folder of the workspace") from None


@contextmanager
def opened(name: str, flags: int, parent: int) -> Iterator[int]:
    """A file's descriptor for the body. Raises as `open_file`."""
    descriptor = open_file(name, flags, parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(name: str, flags: int, parent: int) -> int:
    """A file's descriptor. Raises FileNotFoundError, PathRefused, and OSError for what the disk has to say."""
    try:
        return os.open(name, flags, 0o600, dir_fd=parent)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        raise PathRefused(f"{name} is not a plain file of the workspace") from None


def require_plain(status: os.stat_result, path: str) -> None:
    """Raises PathRefused for what is no file, or a file that has a second name: it may lie anywhere on the disk."""
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise PathRefused(f"{path} is not a plain file of the workspace")


def plain(name: str, parent: int, path: str) -> os.stat_result | None:
    """What is known of a file; None when there is none. Raises PathRefused for anything else."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    require_plain(status, path)
    return status


def look(name: str, parent: int) -> os.stat_result | None:
    """What is known of a plain file or a folder; None for links, devices and what is not there."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
        return status
    return None


def names_in(descriptor: int) -> list[str]:
    """The names in a folder, in order."""
    with os.scandir(descriptor) as found:
        return sorted(entry.name for entry in found)


@contextmanager
def aside(name: str, parent: int) -> Iterator[int]:
    """A new file to write in the body, which then takes the place of `name` durably, or not at all."""
    part = f".{uuid4().hex}.part"
    try:
        with opened(part, NEW, parent) as descriptor:
            yield descriptor
            os.fsync(descriptor)
        os.replace(part, name, src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)
    except BaseException:
        remove(part, parent)
        raise


def remove(name: str, parent: int) -> None:
    """Remove a file, or a link itself, that may be gone already."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of it where the descriptor is."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
