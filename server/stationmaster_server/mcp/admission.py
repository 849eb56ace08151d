"""What may be registered as an MCP server on this installation."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from stationmaster_server.errors import AlreadyExists, InvalidArgument
from stationmaster_server.mcp.commands import refuse_command
from stationmaster_server.resilience.outbound import Outbound

TAKEN = frozenset({"files", "math", "time", "claude", "stationmaster"})
"""The first parts of names of tools that Stationmaster has itself: policies would mean two things."""


class Admission:
    """The rules of the installation's settings."""

    def __init__(self, commands: Sequence[str], outbound: Outbound) -> None:
        self._commands = commands
        self._outbound = outbound

    def check_id(self, server_id: str) -> None:
        """Raises AlreadyExists for an id that tools of our own begin with."""
        if server_id in TAKEN:
            raise AlreadyExists("tool", f"{server_id}.*")

    def check_command(self, command: str) -> None:
        """Raises FailedPrecondition(COMMAND_REFUSED)."""
        refuse_command(command, self._commands)

    async def check_url(self, url: str) -> None:
        """Raises InvalidArgument for what is no plain http(s) URL, FailedPrecondition(ADDRESS_REFUSED)."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument.field("mcp_server.http.url", "must be http://host/path or https://host/path")
        if parts.username or parts.password:
            raise InvalidArgument.field("mcp_server.http.url", "must hold no user or password: use headers")
        await self._outbound.check(url)
