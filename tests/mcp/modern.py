"""A server that the library made, which speaks the protocol of 2026: `modern.py stdio` or `modern.py http:PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from mcp.server.mcpserver import Context, MCPServer

PROGRAM = __file__


def make() -> MCPServer:
    """The server."""
    server = MCPServer("modern", instructions="Be kind.", version="7")
    running: set[str] = set()

    @server.tool()
    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    @server.tool()
    async def grow(name: str, context: Context[Any]) -> str:
        """Offer one more tool."""
        server.add_tool(lambda: "grown", name=name, description="Grown.")
        await context.notify_tools_changed()
        return name

    @server.tool()
    async def steps(context: Context[Any]) -> str:
        """Tell of progress."""
        for step in range(3):
            await context.report_progress(step + 1, 3, f"step {step + 1}")
        return "done"

    @server.tool()
    async def hang(name: str) -> str:
        """Hang until cancelled."""
        running.add(name)
        try:
            await asyncio.sleep(1000)
        finally:
            running.discard(name)
        return name

    @server.tool()
    async def hanging() -> str:
        """Who hangs."""
        return ",".join(sorted(running))

    @server.tool()
    async def fail() -> str:
        """Fail."""
        raise ValueError("it cannot be done")

    @server.resource("data://thing", mime_type="text/plain")
    def thing() -> str:
        """A thing."""
        return "a thing"

    @server.prompt()
    def greet(name: str) -> str:
        """Greet."""
        return f"Greet {name}."

    return server


def main() -> None:
    """Serve."""
    if sys.argv[1] == "stdio":
        make().run("stdio")
    else:
        make().run("streamable-http", host="127.0.0.1", port=int(sys.argv[1].partition(":")[2]))


if __name__ == "__main__":
    main()
