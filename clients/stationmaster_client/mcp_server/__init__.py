"""Stationmaster as an MCP server (`stationmaster mcp`): a client of the API that other agents use as tools.

Needs the extra `mcp`. A tool is a function under `@reads` or `@changes` in a file of `tools/`,
which `server.py` imports.
"""
