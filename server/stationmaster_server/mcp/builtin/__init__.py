"""MCP servers that run in this process: `database`, `monitoring`, `kubernetes_readonly`."""
