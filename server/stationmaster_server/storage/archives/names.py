"""The names in an archive: each there once, and no more of them than memory can bear."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from stationmaster_server.storage.archives.model import ArchiveRefused

_FOLDERS_PER_FILE = 4
_MOST_BYTES = 16 * 1024 * 1024
"""Of all paths together: 100,000 of 160 bytes."""


class Twice(ArchiveRefused):
    """A file is there already, or a file in place of its folder."""


class Tree:
    """A tree of names. `distinct_in_case`: two must differ in more than that, as they would be one on some disks."""

    def __init__(self, most_files: int, *, distinct_in_case: bool) -> None:
        self._most_nodes = (_FOLDERS_PER_FILE + 1) * most_files + 100
        self._distinct_in_case = distinct_in_case
        self._nodes: dict[tuple[int, str], int] = {}
        self._files: set[int] = set()
        self._bytes = 0

    def add(self, names: Sequence[str]) -> None:
        """A file. Raises Twice, and ArchiveRefused for one too many."""
        path = "/".join(names)
        self._bytes += len(path.encode())
        if self._bytes > _MOST_BYTES:
            raise ArchiveRefused(path, f"with it the paths have more than {_MOST_BYTES:,} bytes")
        *folders, last = map(self._key, names)
        at = 0
        for folder in folders:
            at = self._enter(path, at, folder)
            if at in self._files:
                raise Twice(path, "is in a folder that is a file as well")
        if (at, last) in self._nodes:
            raise Twice(path, "is there twice, or is a folder as well")
        self._files.add(self._enter(path, at, last))

    def _enter(self, path: str, parent: int, name: str) -> int:
        node = self._nodes.get((parent, name))
        if node is None:
            if len(self._nodes) >= self._most_nodes:
                raise ArchiveRefused(path, f"with it there are more than {self._most_nodes:,} files and folders")
            node = self._nodes[parent, name] = len(self._nodes) + 1
        return node

    def _key(self, name: str) -> str:
        return unicodedata.normalize("NFC", name.casefold()) if self._distinct_in_case else name
