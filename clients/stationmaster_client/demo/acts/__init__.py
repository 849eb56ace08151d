"""The rest of the station: an act for each service, each with what it proves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from stationmaster_client.demo.acts import audit, credentials, files, identity, maintenance, mcp, prompts, tasks
from stationmaster_client.demo.stage import Stage

ACTS: tuple[Callable[[Stage], Awaitable[None]], ...] = (
    identity.play,
    credentials.play,
    prompts.play,
    tasks.play,
    files.play,
    mcp.play,
    maintenance.play,
    audit.play,  # the last: the others are in its trail
)
