"""What there is in a place, seen from outside of the server."""

from __future__ import annotations

import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SECRET = b"nobody's business"
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

    async def surround(self, workspace: str) -> None:
        """Put something beside a workspace that is none of its business, under names that attacks would use."""

    async def snapshot(self, without: str = "") -> dict[str, object]:
        """All that there is, with what is in it; `without` the files of a workspace."""

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

    async def surround(self, workspace: str) -> None:
        """See `Site`."""
        beside = self.root.parent.parent
        for folder in (beside, beside / "etc", self.root.parent, self.root):
            folder.mkdir(exist_ok=True)
            for name in ("secret", "passwd", "b"):
                (folder / name).write_bytes(SECRET)

    async def snapshot(self, without: str = "") -> dict[str, object]:
        """See `Site`."""
        beside, left_out = self.root.parent.parent, self.root / without.partition("/")[2]
        found: dict[str, object] = {}
        for path in beside.rglob("*"):
            ours = path.is_relative_to(self.root) or not path.is_relative_to(self.root.parent)
            if ours and not (without and path.is_relative_to(left_out)) and ".uploads" not in path.parts:
                status = path.lstat()
                contents = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
                found[str(path)] = (status.st_mode, status.st_ino, contents)
        return found

    async def size(self) -> int:
        """See `Site`."""
        sizes: dict[int, int] = {}
        for path in self.root.rglob("*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                sizes[status.st_ino] = status.st_size if stat.S_ISREG(status.st_mode) else 0
        return sum(sizes.values())
