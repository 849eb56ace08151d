"""Names of tools as the command line knows them: `files.read` is `mcp__stationmaster__files_read` there."""

from __future__ import annotations

from collections.abc import Iterable

from stationmaster_server.agents.runtimes.toolnames import by_wire_name, wire_name

SERVER = "stationmaster"
"""The name of the MCP server that offers our tools to the command line."""
_PREFIX = f"mcp__{SERVER}__"


class Names:
    """The names of offered tools, both ways; a tool that is offered no more is still called as it was."""

    def __init__(self, tools: Iterable[str]) -> None:
        self.by_wire = by_wire_name(tools)
        self._wires = {tool: wire for wire, tool in self.by_wire.items()}

    def wire(self, tool: str) -> str:
        """The name in the MCP server."""
        return self._wires.get(tool) or wire_name(tool)

    def full(self, tool: str) -> str:
        """The name that the model sees."""
        return _PREFIX + self.wire(tool)

    def tool(self, full: str) -> str:
        """Our name for what the model calls."""
        wire = full.removeprefix(_PREFIX)
        return self.by_wire.get(wire, wire)
