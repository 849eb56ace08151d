"""The part of the story about an MCP server: a departures board that asks before anybody changes it."""

from __future__ import annotations

import sys
from pathlib import Path

from stationmaster.v1 import mcp_pb2

from stationmaster_client.client import Client
from stationmaster_client.demo import board
from stationmaster_client.demo.server import DemoFailure

SERVER = "board"
READ = f"/tool {SERVER}.departures {{}}"
CHANGE = f'/tool {SERVER}.set_platform {{"train": "Aurora", "platform": 7}}'
CHANGED = "Aurora: platform 7"


class Departures:
    """The board: what it shows is in a file, so that everybody can see what was changed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "departures.txt"
        self.changes_when_asked: list[str] | None = None
        """What had been changed when the permission to change something was asked for."""

    async def register(self, client: Client) -> mcp_pb2.CheckMcpServerResponse:
        """Register its MCP server by API, and ask the server whether it can be reached. Raises DemoFailure."""
        self._file.write_text(board.FIRST)
        server = mcp_pb2.McpServer(
            display_name="The departures board",
            stdio=mcp_pb2.McpStdio(command=sys.executable, arguments=["-I", str(board.PROGRAM), str(self._file)]),
            trust_annotations=True,
        )
        registered = await client.mcp.register(SERVER, server)
        found = await client.mcp.check(registered.name)
        if not found.healthy:
            raise DemoFailure(f"{registered.name} cannot be reached: {found.problem}")
        return found

    def asked(self) -> None:
        """Permission to change it is asked for: see what was changed until now."""
        self.changes_when_asked = self.changes

    @property
    def changes(self) -> list[str]:
        """What was changed, in order."""
        return self._file.read_text().removeprefix(board.FIRST).splitlines()
