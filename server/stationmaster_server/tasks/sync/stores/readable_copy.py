"""A copy of a store for readers, who must not open the files that a server writes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

_KEPT = 2
"""Readers may still have the one before the newest open."""


class ReadableCopy:
    """`latest` links to the newest of `copies`, which is whole; it is replaced at most so often."""

    def __init__(self, path: Path, every: timedelta) -> None:
        self.latest = path.with_name(f"{path.name}.latest")
        self._copies = path.with_name(f"{path.name}.copies")
        self._every = every.total_seconds()
        self._made_at = -self._every
        self.stale = True
        """Whether the store has changed since the last copy, or may have."""

    def renew(self, copy_to: Callable[[str], object]) -> None:
        """Copy the store anew, if it has changed and it is time. Raises OSError."""
        if not self.stale or time.monotonic() - self._made_at < self._every:
            return
        self._copies.mkdir(mode=0o700, exist_ok=True)
        copy = self._copies / f"{time.time_ns():020}"
        copy_to(str(copy))
        link = self.latest.with_name(f"{self.latest.name}.new")
        link.unlink(missing_ok=True)
        link.symlink_to(copy)
        os.replace(link, self.latest)  # noqa: PTH105 - of a link, not of what it leads to
        self.stale, self._made_at = False, time.monotonic()
        for old in sorted(self._copies.iterdir())[:-_KEPT]:
            shutil.rmtree(old)
