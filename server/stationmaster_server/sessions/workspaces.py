"""Workspaces: one folder for each session below the data folder, readable by the server's account alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID


class Workspaces:
    """The folders `{root}/{session id}`. Each call is one or two system calls on a local disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> None:
        """Make the folder that holds them all; once, at the start."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, session_id: UUID) -> Path:
        """Where a session's files are, whether or not the folder exists."""
        return self._root / str(session_id)

    def open(self, session_id: UUID) -> Path:
        """The session's folder; made when it is missing, as on a server that has not run the session before."""
        path = self.path(session_id)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def discard(self, session_id: UUID) -> None:
        """Remove a folder that turned out not to be needed. One with files in it stays."""
        with suppress(OSError):
            self.path(session_id).rmdir()

    @contextmanager
    def allocated(self, session_id: UUID) -> Iterator[Path]:
        """A new, empty folder for the body, which commits the session; gone again when the body raises."""
        path = self.path(session_id)
        path.mkdir(mode=0o700)
        try:
            yield path
        except BaseException:
            self.discard(session_id)
            raise
