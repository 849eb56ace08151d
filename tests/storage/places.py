"""What there is in a place, seen from outside of the server."""

from __future__ import annotations

import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PART = 256 * 1024
"""Uploads are kept in pieces of so many bytes, where they are not kept byte by byte."""


class Site(Protocol):
    """Where a server keeps files."""

    @property
    def kind(self) -> str:
        """As the setting says."""

    async def everything(self) -> set[str]:
        """The paths of all files, those of workspaces without what stands before them, and what is being uploaded."""

    def environment(self) -> dict[str, str]:
        """What tells a server of it."""

    async def size(self) -> int:
        """How many bytes these have; what moves from one name to another meanwhile counts once."""


@dataclass(frozen=True)
class LocalSite:
    """A folder."""

    root: Path
    kind: str = "local"

    async def everything(self) -> set[str]:
        """See `Site`."""
        files = [path.relative_to(self.root) for path in self.root.rglob("*") if not path.is_dir()]
        return {str(path) if path.parts[0] == ".uploads" else str(Path(*path.parts[1:])) for path in files}

    def environment(self) -> dict[str, str]:
        """See `Site`."""
        return {}

    async def size(self) -> int:
        """See `Site`."""
        sizes: dict[int, int] = {}
        for path in self.root.rglob("*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                sizes[status.st_ino] = status.st_size if stat.S_ISREG(status.st_mode) else 0
        return sum(sizes.values())
