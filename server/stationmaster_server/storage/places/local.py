"""Files on a local disk: one folder for each session, in which its agents work too."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from stationmaster_server.storage.paths import MAX_DEPTH, PathRefused, speakable
from stationmaster_server.storage.places import folders
from stationmaster_server.storage.places.local_files import LocalReading, LocalReceiver, etag_of
from stationmaster_server.storage.places.place import Found, Home, Listed, Measured, Names, NotEmpty, Published
from stationmaster_server.storage.places.threads import Threads

_UPLOADS = ".uploads"
_ATTEMPTS = 10


class LocalPlace:
    """The folders `{root}/{session}`; what is being uploaded is beside them, in `{root}/.uploads/{session}`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = Threads()

    async def find(self, home: Home, names: Names) -> Found | None:
        """See `Place`."""
        return await self._threads.run(self._find, home, names)

    async def list(self, home: Home, names: Names, *, recursive: bool, after: str, limit: int) -> Listed:
        """See `Place`."""
        return await self._threads.run(self._list, home, tuple(names), recursive, after, limit)

    @asynccontextmanager
    async def read(self, home: Home, names: Names) -> AsyncIterator[LocalReading]:
        """See `Place`."""
        reading = await self._threads.open(LocalReading.close, self._open, home, names)
        try:
            yield reading
        finally:
            reading.close()

    @asynccontextmanager
    async def receive(self, home: Home, upload_id: UUID, offset: int) -> AsyncIterator[LocalReceiver]:
        """See `Place`."""
        receiver = await self._threads.open(LocalReceiver.abandon, self._begin, home, upload_id, offset)
        try:
            yield receiver
        finally:
            await receiver.close()

    async def received(self, home: Home, upload_id: UUID) -> int:
        """See `Place`."""
        return await self._threads.run(self._received, home, upload_id)

    async def publish(self, home: Home, upload_id: UUID, names: Names) -> Published:
        """See `Place`."""
        return await self._threads.run(self._publish, home, upload_id, tuple(names))

    async def discard(self, home: Home, upload_id: UUID) -> None:
        """See `Place`."""
        await self._threads.run(self._discard, home, upload_id)

    async def remove(self, home: Home, names: Names) -> int | None:
        """See `Place`."""
        return await self._threads.run(self._remove, home, tuple(names))

    async def move(self, home: Home, names: Names, target: Names) -> Published:
        """See `Place`."""
        return await self._threads.run(self._move, home, tuple(names), tuple(target))

    async def measure(self, home: Home) -> Measured:
        """See `Place`."""
        return await self._threads.run(self._measure, home)

    async def clear(self, home: Home) -> bool:
        """See `Place`."""
        return await self._threads.run(self._clear, home)

    async def close(self) -> None:
        """See `Place`."""
        self._threads.close()

    def _workspace(self, home: Home, *, make: bool = False) -> Path:
        path = self._root / str(home.session_id)
        if make:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _uploads(self, home: Home, *, make: bool = False) -> Path:
        path = self._root / _UPLOADS / str(home.session_id)
        if make:
            (self._root / _UPLOADS).mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
        return path

    def _find(self, home: Home, names: Names) -> Found | None:
        *parents, name = names
        try:
            with folders.folder(self._workspace(home), parents) as folder:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            folders.require_plain(status, name)
        return _found("/".join(names), status)

    def _list(self, home: Home, names: tuple[str, ...], recursive: bool, after: str, limit: int) -> Listed:
        start = tuple(after.rstrip("/").split("/"))[len(names) :] if after else ()
        found: list[Found] = []
        with suppress(FileNotFoundError):
            for entry in self._walk(self._workspace(home), names, start, recursive):
                if len(found) == limit:
                    return Listed(found, found[-1].cursor)
                found.append(entry)
        return Listed(found, "")

    def _walk(self, root: Path, names: tuple[str, ...], after: Names, recursive: bool) -> Iterator[Found]:
        """What comes after some names in a folder; `recursive`: the files in its folders in place of these."""
        first = after[0] if after else ""
        with folders.folder(root, names) as folder:
            here = [(name, folders.look(name, folder)) for name in folders.names_in(folder) if name >= first]
        for name, status in here:
            if status is None or not speakable(name):
                continue
            inner, seen = (*names, name), bool(after) and name == first
            if recursive and stat.S_ISDIR(status.st_mode):
                if len(inner) < MAX_DEPTH:
                    with suppress(FileNotFoundError, PathRefused):  # gone, or swapped, while we walked
                        yield from self._walk(root, inner, after[1:] if seen else (), recursive)
            elif not seen:
                yield _found("/".join(inner), status)

    def _open(self, home: Home, names: Names) -> LocalReading:
        *parents, name = names
        with folders.folder(self._workspace(home), parents) as folder:
            descriptor = folders.open_file(name, folders.READ, folder)
        try:
            status = os.fstat(descriptor)
            folders.require_plain(status, name)
        except BaseException:
            os.close(descriptor)
            raise
        return LocalReading(self._threads, descriptor, _found("/".join(names), status))

    def _begin(self, home: Home, upload_id: UUID, offset: int) -> LocalReceiver:
        with folders.folder(self._uploads(home, make=True)) as folder:
            return LocalReceiver.begin(self._threads, folder, str(upload_id), offset)

    def _received(self, home: Home, upload_id: UUID) -> int:
        try:
            with folders.folder(self._uploads(home)) as folder:
                status = folders.plain(str(upload_id), folder, str(upload_id))
        except FileNotFoundError:
            return 0
        return 0 if status is None else status.st_size

    def _publish(self, home: Home, upload_id: UUID, names: tuple[str, ...]) -> Published:
        with folders.folder(self._uploads(home)) as uploads:
            if folders.plain(str(upload_id), uploads, str(upload_id)) is None:
                raise FileNotFoundError(errno.ENOENT, "no such upload")
            workspace = self._workspace(home, make=True)
            return self._into_place(uploads, str(upload_id), workspace, names)

    def _into_place(self, source: int, name: str, workspace: Path, names: tuple[str, ...]) -> Published:
        *parents, last = names
        with _folder(workspace, parents) as folder:
            before = folders.plain(last, folder, last)
            os.replace(name, last, src_dir_fd=source, dst_dir_fd=folder)
            os.fsync(folder)
            os.fsync(source)
            after = os.stat(last, dir_fd=folder, follow_symlinks=False)
        return Published(_found("/".join(names), after), None if before is None else before.st_size)

    def _discard(self, home: Home, upload_id: UUID) -> None:
        with suppress(FileNotFoundError), folders.folder(self._uploads(home)) as folder:
            folders.remove(str(upload_id), folder)
            with suppress(OSError):
                self._uploads(home).rmdir()

    def _remove(self, home: Home, names: tuple[str, ...]) -> int | None:
        *parents, name = names
        with folders.folder(self._workspace(home), parents) as folder:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                size = None
                _remove_folder(name, folder)
            else:
                folders.require_plain(status, name)
                size = status.st_size
                os.unlink(name, dir_fd=folder)
            os.fsync(folder)
        self._prune(home, parents)
        return size

    def _move(self, home: Home, names: tuple[str, ...], target: tuple[str, ...]) -> Published:
        *parents, name = names
        with folders.folder(self._workspace(home), parents) as folder:
            if folders.plain(name, folder, name) is None:
                raise FileNotFoundError(errno.ENOENT, "no such file")
            published = self._into_place(folder, name, self._workspace(home), target)
        self._prune(home, parents)
        return published

    def _prune(self, home: Home, names: Sequence[str]) -> None:
        """Folders are there while files are in them."""
        for count in range(len(names), 0, -1):
            *parents, name = names[:count]
            try:
                with folders.folder(self._workspace(home), parents) as folder:
                    os.rmdir(name, dir_fd=folder)
            except (OSError, PathRefused):
                return

    def _measure(self, home: Home) -> Measured:
        used = count = 0
        with suppress(FileNotFoundError):
            for _, _, files, descriptor in os.fwalk(self._workspace(home), follow_symlinks=False):
                for name in files:
                    with suppress(FileNotFoundError):
                        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            used, count = used + status.st_size, count + 1
        return Measured(used, count)

    def _clear(self, home: Home) -> bool:
        there = False
        for path in (self._uploads(home), self._workspace(home)):
            if path.is_dir():
                there = there or path == self._workspace(home)
                shutil.rmtree(path)
        return there


@contextmanager
def _folder(workspace: Path, names: Sequence[str]) -> Iterator[int]:
    """A folder that is made unless it is there; others may be removing it as it becomes empty."""
    with ExitStack() as stack:
        for attempt in range(_ATTEMPTS):
            try:
                folder = stack.enter_context(folders.folder(workspace, names, make=True))
                break
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1:
                    raise
        yield folder


def _remove_folder(name: str, parent: int) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise NotEmpty(name) from None
        raise


def _found(path: str, status: os.stat_result) -> Found:
    when = datetime.fromtimestamp(status.st_mtime, UTC)
    if stat.S_ISDIR(status.st_mode):
        return Found(path, None, "", when)
    return Found(path, status.st_size, etag_of(status), when)
