"""The tools that come with the server, as agents and editors see them."""

from __future__ import annotations

from stationmaster_client.demo.stage import Stage

SERVER = "monitoring"


async def play(stage: Stage) -> None:
    """Ask the server's own MCP server about the queue."""
    client, programme = stage.client, stage.programme
    programme.act("Tools of the server's own")
    tools = [tool.tool async for tool in client.mcp.tools(SERVER)]
    called = await client.mcp.call(SERVER, "queues")
    good = "queues" in tools and not called.is_error
    programme.check("MCP", f"mcpServers/{SERVER} is there without any set-up", good, f"{len(tools)} tools")
