"""Which tools a turn has: those of this server, and those of the MCP servers that its specification names."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from stationmaster_server.agents.model import AgentSpec
from stationmaster_server.agents.runtime import OURS, McpMessage
from stationmaster_server.agents.tools.mcp import McpTools
from stationmaster_server.agents.tools.tool import Tool
from stationmaster_server.agents.tools.toolbox import Toolbox
from stationmaster_server.db.model import Tenant

_MOST_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Offered:
    """The tools of a turn by name; `missing` has the named servers that gave none or not all of theirs, and why.

    `key` is equal for equal tools: what is made of them can be kept.
    """

    tools: Mapping[str, Tool]
    key: Hashable
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def notices(self) -> list[McpMessage]:
        """What readers are told of the missing servers."""
        return [McpMessage(server, "error", why, logger=OURS) for server, why in self.missing.items()]

    def refusal(self, tool: str) -> str:
        """What a model is told that calls a tool which is not offered."""
        for server, why in self.missing.items():
            if tool.startswith((f"{server}.", f"{server}_")):  # as providers take names: they know no dots
                return f"There is no tool {tool!r} now: {why}"
        return f"There is no tool {tool!r} here. Tools: {', '.join(self.tools) or 'none'}."


class ToolSource:
    """Finds the tools of turns. `remote` reaches MCP servers; None where there are none."""

    def __init__(self, toolbox: Toolbox, remote: McpTools | None = None) -> None:
        self._toolbox = toolbox
        self._remote = remote
        self._kept: dict[tuple[str, ...], Offered] = {}

    async def of(self, tenant: Tenant, spec: AgentSpec) -> Offered:
        """The tools of a turn of this tenant. A server that cannot be reached costs its own tools only."""
        own = self._own(spec.tools)
        if not spec.mcp_servers or self._remote is None:
            return own
        found = await self._remote.of(tenant, spec.mcp_servers, spec.tools)
        return Offered({**own.tools, **found.tools}, (spec.tools, found.key), found.missing)

    def _own(self, patterns: tuple[str, ...]) -> Offered:
        offered = self._kept.get(patterns)
        if offered is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            offered = self._kept[patterns] = Offered(self._toolbox.offered(patterns), patterns)
        return offered
