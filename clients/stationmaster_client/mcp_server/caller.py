"""On whose behalf a request of MCP calls the API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from stationmaster_client.calls import DEFAULT_TIMEOUT
from stationmaster_client.client import Client


class Callers(Protocol):
    """Finds the client for a request."""

    def client(self, context: Context[Any, Any]) -> Client:
        """The client that acts as whoever sent the request."""


class OneCaller:
    """Over stdio: whoever started the process."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def client(self, context: Context[Any, Any]) -> Client:
        """The client of the command line."""
        return self._client


class BearerCallers:
    """Over HTTP: everybody is who his own key says. No key of this process is lent to anybody."""

    def __init__(self, client: Client, timeout: timedelta = DEFAULT_TIMEOUT) -> None:
        """Of `client` only the connection is used."""
        self._client = client
        self._timeout = timeout

    def of(self, authorization: str | None) -> Client | None:
        """The client of who sent this header; None without a key in it."""
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            return None
        return self._client.on_behalf_of(key, timeout=self._timeout)

    def client(self, context: Context[Any, Any]) -> Client:
        """The client of who sent this request."""
        headers = context.headers or {}
        client = self.of(headers.get("authorization"))
        if client is None:
            raise ToolError("this request carries no API key. Send the header Authorization: Bearer {API key}.")
        return client


@dataclass(slots=True)
class Call:
    """What a tool works with."""

    client: Client
    context: Context[Any, Any]
    _steps: int = 0

    async def progress(self, message: str) -> None:
        """Tell the caller, if it asked for progress, what is going on."""
        self._steps += 1
        await self.context.report_progress(self._steps, message=message)
