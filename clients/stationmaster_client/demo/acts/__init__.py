"""The rest of the station: an act for each service, each with what it proves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from stationmaster_client.demo.acts import (
    audit,
    credentials,
    experiments,
    exports,
    files,
    identity,
    maintenance,
    mcp,
    prompts,
    tasks,
)
from stationmaster_client.demo.stage import Stage

ACTS: tuple[tuple[str, Callable[[Stage], Awaitable[None]]], ...] = (
    ("Identity", identity.play),
    ("Credential", credentials.play),
    ("Prompt", prompts.play),
    ("Prompt", experiments.play),  # with the versions of that prompt
    ("Task", tasks.play),
    ("Task", exports.play),
    ("Storage", files.play),
    ("MCP", mcp.play),
    ("Maintenance", maintenance.play),
    ("Audit", audit.play),  # the last: the others are in its trail
)
"""Each with the service that it is about."""
