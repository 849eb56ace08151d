"""What stores of their own have in common: files of one process, worked on off the event loop."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from stationmaster_server.tasks.sync.model import About, Cursor, Key, TaskState
from stationmaster_server.tasks.sync.stores.file_lock import FileLock
from stationmaster_server.tasks.sync.target import TargetAway

T = TypeVar("T")


class StoreTarget(ABC):
    """A target in files at `path`. Its methods without `async` run in threads, one at a time."""

    about: Collection[About]
    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = f"{socket.gethostname()}:{path}"
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))

    async def open(self) -> bool:
        """Take the files, unless another process has them."""
        return await self._off_loop(self._open)

    async def close(self) -> None:
        """Close the files, and let others have them."""
        await self._off_loop(self._close)

    async def cursor(self) -> Cursor | None:
        """As it was written with the contents."""
        return await self._off_loop(self._cursor)

    async def apply(self, states: Sequence[TaskState], cursor: Cursor) -> None:
        """Write the tasks and the cursor in one transaction of the store."""
        await self._off_loop(lambda: self._apply(states, cursor))

    async def reset(self, cursor: Cursor) -> None:
        """Delete everything."""
        await self._off_loop(lambda: self._reset(cursor))

    async def differing(self, states: Sequence[TaskState]) -> Sequence[Key]:
        """Those of which the files hold something else."""
        return await self._off_loop(
            lambda: [state.key for state in states if self._held(state.key) != self._wanted(state)]
        )

    @abstractmethod
    def keys(self, at_once: int) -> AsyncIterator[Sequence[Key]]:
        """Every task of which the files hold something."""

    async def skipped(self) -> Mapping[Key, str]:
        """Nothing: files take everything."""
        return {}

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...

    @abstractmethod
    def _cursor(self) -> Cursor | None: ...

    @abstractmethod
    def _apply(self, states: Sequence[TaskState], cursor: Cursor) -> None: ...

    @abstractmethod
    def _reset(self, cursor: Cursor) -> None: ...

    @abstractmethod
    def _held(self, key: Key) -> object: ...  # None: nothing

    @abstractmethod
    def _wanted(self, state: TaskState) -> object: ...  # what `_held` should be

    def _open(self) -> bool:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._lock.take():
            return False
        self._start()
        return True

    def _close(self) -> None:
        self._stop()
        self._lock.release()

    async def _off_loop(self, do: Callable[[], T]) -> T:
        # Shielded: a thread goes on when its run is cancelled, and nothing else may begin before it has ended.
        work = asyncio.ensure_future(asyncio.to_thread(do))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
        except self.errors as error:
            text = f"the store {self.path} cannot be used: {error}; it is tried again; broken files can be deleted"
            raise TargetAway(text) from error
