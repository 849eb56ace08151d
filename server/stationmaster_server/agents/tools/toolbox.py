"""The tools of a server, and which of them a specification offers to its model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from stationmaster_server.agents.tools.tool import Tool


class Toolbox:
    """Tools by name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in sorted(tools, key=lambda tool: tool.name)}

    @property
    def names(self) -> tuple[str, ...]:
        """Every tool's name."""
        return tuple(self._tools)

    def offered(self, patterns: tuple[str, ...]) -> Mapping[str, Tool]:
        """The tools that these names and patterns (`*`) choose, by name, in the order of their names."""
        return {
            name: tool for name, tool in self._tools.items() if any(fnmatchcase(name, pattern) for pattern in patterns)
        }
