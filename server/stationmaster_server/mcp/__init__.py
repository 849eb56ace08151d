"""MCP servers: registered at three levels, connected to on demand, used by agents and callers."""
