"""The tools that come with the server, as agents and editors see them."""

from __future__ import annotations

from stationmaster_client.demo.stage import Stage
from stationmaster_client.structs import values

SERVER = "monitoring"


async def play(stage: Stage) -> None:
    """Ask the server's own MCP server how many sessions there are."""
    client, programme = stage.client, stage.programme
    programme.act("Tools of the server's own")
    tools = [tool.tool async for tool in client.mcp.tools(SERVER)]
    before = await _sessions(stage)
    called = await client.mcp.call(SERVER, "sessions")
    after = await _sessions(stage)
    programme.check(
        "MCP", f"mcpServers/{SERVER} is there without any set-up", "sessions" in tools, f"{len(tools)} tools"
    )
    states = values(called.structured_content).get("sessions")
    counts = states if isinstance(states, dict) else {}
    total = sum(int(count) for count in counts.values())
    true = not called.is_error and 0 < before <= total <= after
    told = ", ".join(f"{state} {int(count)}" for state, count in sorted(counts.items()))
    programme.check("MCP", f"{SERVER}.sessions counts as the list of sessions does", true, told or "no answer")


async def _sessions(stage: Stage) -> int:
    return len([session async for session in stage.client.sessions.list()])
