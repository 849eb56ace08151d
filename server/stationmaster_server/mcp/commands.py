"""Which commands servers over stdio may run: they run with the rights of this server."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason


def refuse_command(command: str, patterns: Sequence[str]) -> None:
    """Raises FailedPrecondition(COMMAND_REFUSED) unless a pattern allows the command."""
    if any(fnmatchcase(command, pattern) for pattern in patterns):
        return
    advice = "ask whoever runs this server to add it to the setting mcp.stdio_commands, or use a server over HTTP"
    raise FailedPrecondition(
        Reason.COMMAND_REFUSED,
        f"the command {command!r} may not be run as an MCP server here: {advice}",
        PreconditionViolation("COMMAND", command, advice),
    )
