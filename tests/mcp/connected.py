"""What tests of connections share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
from stationmaster_server.config.mcp import McpSettings
from stationmaster_server.db.model import Tenant
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import CallResult, Level, McpServer, TextContent, Transport


def plain_clients(
    *,
    timeout: httpx2.Timeout | None = None,
    headers: Mapping[str, str] | None = None,
    max_response_bytes: int | None = None,
    follow_redirects: bool = False,
) -> httpx2.AsyncClient:
    """A client that may reach this machine."""
    return httpx2.AsyncClient(timeout=timeout, headers=headers, follow_redirects=follow_redirects)


@asynccontextmanager
async def connections(
    bounds: Bounds | None = None, built_in: Any = None, **settings: Any
) -> AsyncIterator[Connections]:
    """Connections, closed after the block."""
    made = Connections(McpSettings(**settings), built_in=built_in or {}, http=plain_clients, bounds=bounds)
    try:
        yield made
    finally:
        await made.close()


def target(
    transport: Transport, *, tenant: Tenant | None = None, session_id: UUID | None = None, **server: Any
) -> Target:
    """A server of a user's."""
    server.setdefault("call_timeout", timedelta(seconds=60))
    server.setdefault("connect_timeout", timedelta(seconds=60))
    made = McpServer(server.pop("server_id", "thing"), Level.USER, transport, uid=uuid4(), **server)
    return Target(tenant or Tenant(uuid4(), uuid4()), made, session_id)


@dataclass(slots=True)
class Heard:
    """A listener that keeps what it hears."""

    fractions: list[float | None] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    logs: list[tuple[str, str, str]] = field(default_factory=list)

    def progress(self, message: str, fraction: float | None) -> None:
        self.messages.append(message)
        self.fractions.append(fraction)

    def log(self, level: str, logger: str, text: str) -> None:
        self.logs.append((level, logger, text))


def texts(result: CallResult) -> str:
    """The texts of an answer."""
    return "\n".join(content.text for content in result.content if isinstance(content, TextContent))
