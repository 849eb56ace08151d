"""The MCP server `monitoring`: the health of this server, and what an organization has in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import StationmasterError
from stationmaster_server.mcp.builtin import text
from stationmaster_server.mcp.builtin.readings import Health, MetricSamples, Monitoring, Queues, SessionsOverview

_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


def make_server(monitoring: Monitoring, tenant: Tenant) -> MCPServer:
    """The server, as one tenant sees it."""
    server = MCPServer(
        "monitoring",
        title="Monitoring",
        instructions="How this server and the work of the organization are doing. Nothing can be changed.",
    )

    _add_process(server, monitoring, tenant)
    _add_organization(server, monitoring, tenant)
    return server


def _add_process(server: MCPServer, monitoring: Monitoring, tenant: Tenant) -> None:
    @server.tool(annotations=_READS)
    async def health() -> Annotated[CallToolResult, Health]:
        """Tell which services of the answering process work, what is missing, and how fast the database answers."""
        with _told():
            found = await monitoring.health(tenant)
        lines = [f"{name}: {'serving' if serving else 'NOT SERVING'}" for name, serving in found.services.items()]
        lines += [f"missing {need}: {why}" for need, why in found.missing.items()]
        return _result(found, "\n".join([*lines, f"database answers in {found.database_latency_ms} ms"]))

    @server.tool(annotations=_READS)
    async def metrics(
        prefix: Annotated[
            str, Field(description="How the names begin: stationmaster_process, stationmaster_rpc", max_length=100)
        ] = "stationmaster_",
    ) -> Annotated[CallToolResult, MetricSamples]:
        """Tell metrics of the answering server process, at most 200 of them."""
        with _told():
            found = await monitoring.metrics(tenant, prefix)
        rows = [(sample.name, _labels(sample.labels), sample.value) for sample in found.samples]
        shown = text.table(("name", "labels", "value"), rows)
        return _result(found, shown + ("\nCut: give a longer prefix." if found.truncated else ""))


def _add_organization(server: MCPServer, monitoring: Monitoring, tenant: Tenant) -> None:
    @server.tool(annotations=_READS)
    async def queues(
        kind: Annotated[str, Field(description="Work of this kind only (turn, ...); empty: all", max_length=100)] = "",
    ) -> Annotated[CallToolResult, Queues]:
        """Tell how much work waits, runs, is suspended or died, by kind, since when, and why the newest died."""
        with _told():
            found = await monitoring.queues(tenant, kind)
        rows = [(queue.kind, queue.state, queue.count, queue.oldest_seconds) for queue in found.queues]
        shown = text.table(("kind", "state", "count", "oldest due since, s"), rows)
        dead = [(item.kind, item.reason, item.attempts, item.ended, item.error) for item in found.dead]
        if dead:
            shown += "\n\nDead\n" + text.table(("kind", "reason", "attempts", "ended", "last error"), dead)
        return _result(found, shown)

    @server.tool(annotations=_READS)
    async def sessions() -> Annotated[CallToolResult, SessionsOverview]:
        """Tell how many sessions and open turns there are by state, what waits for a permission, and today's cost."""
        with _told():
            found = await monitoring.sessions(tenant)
        rows = [("sessions", state, count) for state, count in found.sessions.items()]
        rows += [("open turns", state, count) for state, count in found.open_turns.items()]
        rows += [("permission requests", "PENDING", found.waiting_permissions)]
        cost = f"\ncost today: {found.cost_micros_today / 1_000_000:.6f}"
        return _result(found, text.table(("what", "state", "count"), rows) + cost)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except StationmasterError as error:
        raise ToolError(error.message) from error


def _result(found: BaseModel, shown: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=shown)], structured_content=found.model_dump())


def _labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())
