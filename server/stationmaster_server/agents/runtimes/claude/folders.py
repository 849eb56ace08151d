"""The folders in which command lines live: one for each server process, which takes it along when it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path


class Folder:
    """A private folder below `parent`, for this process alone. What processes that are gone left there is removed.

    A lock tells who is gone: ids of processes come again, and other containers have their own.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        turnstile = os.open(parent, os.O_RDONLY)
        try:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            for left in parent.iterdir():
                if _deserted(left):
                    shutil.rmtree(left, ignore_errors=True)
            self.path = Path(tempfile.mkdtemp(prefix="process-", dir=parent))
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        finally:
            os.close(turnstile)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _deserted(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
