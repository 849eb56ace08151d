"""Not more tools of third parties than a model can be told of, and not longer at it than the event loop can spare."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from stationmaster_server.agents.tools.tool import Tool

MOST_TOOLS = 256
MOST_BYTES = 512 * 1024

T = TypeVar("T", bound=Tool)


class Same:
    """Equal to itself alone, like the object in it, which it keeps."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __hash__(self) -> int:
        return id(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other._value is self._value


@dataclass(frozen=True, slots=True)
class Chosen(Generic[T]):
    """Tools of one server with their sizes in bytes, as many as a turn may have; `is_cut`: there are more."""

    tools: tuple[tuple[T, int], ...]
    is_cut: bool


def choose(tools: Iterable[T]) -> Chosen[T]:
    """The first of these tools; those behind are not looked at."""
    chosen: list[tuple[T, int]] = []
    total = 0
    for tool in tools:
        size = len(tool.name) + len(tool.description.encode()) + len(json.dumps(tool.parameters))
        total += size
        if len(chosen) >= MOST_TOOLS or total > MOST_BYTES:
            return Chosen(tuple(chosen), is_cut=True)
        chosen.append((tool, size))
    return Chosen(tuple(chosen), is_cut=False)


class Taken(Generic[T]):
    """What a turn has taken of its servers' tools, in the order of the servers. `key` is equal for the same choices."""

    def __init__(self) -> None:
        self.tools: dict[str, T] = {}
        self.key: list[Hashable] = []
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether there is room for no tool."""
        return len(self.tools) >= MOST_TOOLS

    def take(self, chosen: Chosen[T]) -> bool:
        """Take what there is room for; whether something was left out."""
        self.key.append(Same(chosen))
        for tool, size in chosen.tools:
            if self.is_full or self._bytes + size > MOST_BYTES:
                return True
            self.tools[tool.name] = tool
            self._bytes += size
        return chosen.is_cut
