"""Names of tools as providers take them: they know no dots."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_REFUSED = re.compile(r"[^A-Za-z0-9_-]")
_MAX_LENGTH = 64


@lru_cache(maxsize=4096)
def wire_name(tool: str) -> str:
    """`files.read` as `files_read`."""
    return _REFUSED.sub("_", tool)[:_MAX_LENGTH]


def by_wire_name(tools: Iterable[str]) -> dict[str, str]:
    """The tools by the names a model calls them by; of two that would be called alike the second is numbered."""
    names: dict[str, str] = {}
    for tool in tools:
        wire, number = wire_name(tool), 1
        while wire in names:
            number += 1
            suffix = f"_{number}"
            wire = wire_name(tool)[: _MAX_LENGTH - len(suffix)] + suffix
        names[wire] = tool
    return names
