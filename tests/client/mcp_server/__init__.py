"""Stationmaster as an MCP server."""
