"""What callers are told when a server fails: which server, what was seen, without its secrets."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    PreconditionViolation,
    Reason,
    StationmasterError,
    Unavailable,
)
from stationmaster_server.mcp import cleaning
from stationmaster_server.mcp.faults import Ended
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.mcp.model import McpServer

_CHARS = 1500
_LOOK = "Look before calling again, or name the tool in idempotent_tools"


class Teller:
    """Errors about one server."""

    def __init__(self, server: McpServer) -> None:
        self._name = server.server_id
        self._mask = Mask.of(server)

    def why(self, error: Exception) -> str:
        """What was seen, in short."""
        return self._text(str(error))

    def ended(self, cause: Ended) -> StationmasterError:
        """Its connection failed and nothing was executed."""
        return self.fault(cause.why, cause.reason) if cause.is_fault else self.unavailable(cause.why)

    def unavailable(self, why: str) -> Unavailable:
        """It cannot be reached."""
        return Unavailable(
            Reason.MCP_SERVER_UNAVAILABLE, f"MCP server {self._name!r} is not available: {self._text(why)}"
        )

    def fault(self, why: str, reason: Reason = Reason.MCP_SERVER_FAULT) -> FailedPrecondition:
        """It does not do what an MCP server does; or (another reason) it may not be reached."""
        what = "is at fault" if reason is Reason.MCP_SERVER_FAULT else "may not be reached"
        text = f"MCP server {self._name!r} {what}: {self._text(why)}"
        subject = f"mcpServers/{self._name}"
        violation = PreconditionViolation("MCP_SERVER", subject, "mend the server, or check its configuration")
        return FailedPrecondition(reason, text, violation)

    def uncertain(self, what: str, why: str) -> Aborted:
        """A call was sent and its answer lost."""
        return Aborted(
            Reason.MCP_CALL_UNCERTAIN,
            f"MCP server {self._name!r} was lost while it executed {what}, which may or may not have happened: "
            f"{self._text(why)}. {_LOOK}",
        )

    def late(self, what: str, limit: timedelta, *, uncertain: bool = False) -> DeadlineExceeded:
        """It did not answer in time; `uncertain`: and may have done what it was asked."""
        text = (
            f"MCP server {self._name!r} did not answer {what} within {limit.total_seconds():g} s and was told to stop"
        )
        if uncertain:
            text += f"; it may or may not have happened. {_LOOK}"
        return DeadlineExceeded(Reason.DEADLINE_EXCEEDED, text)

    def _text(self, why: str) -> str:
        return cleaning.label(self._mask.text(why), _CHARS)
