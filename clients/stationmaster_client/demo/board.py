"""The station's departures board as an MCP server: `board.py FILE`, over standard input and output.

The file holds what the board showed, a line for each change; the newest line about a train counts. It imports nothing
of Stationmaster: it stands for a server that somebody else wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

PROGRAM = Path(__file__)
FIRST = "Aurora: platform 4\nMeteor: platform 1\n"


def make(file: Path) -> MCPServer:
    """The server of the board in this file."""
    server = MCPServer("departures board", version="1")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True), structured_output=False)
    async def departures() -> str:
        """Tell which train leaves from which platform."""
        return "; ".join(f"{train}: {platform}" for train, platform in _shown(file).items())

    @server.tool(annotations=ToolAnnotations(read_only_hint=False), structured_output=False)
    async def set_platform(train: str, platform: int) -> str:
        """Let a train leave from another platform."""
        if train not in _shown(file):
            raise ToolError(f"no train {train} is on the board")
        with file.open("a") as board:
            board.write(f"{train}: platform {platform}\n")
        return f"{train} leaves from platform {platform}."

    return server


def _shown(file: Path) -> dict[str, str]:
    lines = (line.partition(": ") for line in file.read_text().splitlines())
    return {train: platform for train, _, platform in lines}


if __name__ == "__main__":
    make(Path(sys.argv[1])).run("stdio")
