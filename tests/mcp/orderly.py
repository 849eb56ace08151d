"""A small MCP server that behaves and has some of everything. Of the standard library alone, it starts at once."""

from __future__ import annotations

import json
import sys
from typing import Any

TOOLS = ("add", "echo", "fail")
RESOURCES = ("orderly://one", "orderly://two")
PROMPTS = ("greet", "part")


def main() -> None:
    """Serve over standard input and output."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer(message)}) + "\n")
            sys.stdout.flush()


def answer(message: dict[str, Any]) -> dict[str, Any]:
    """The result or the error of a request."""
    parameters = message.get("params") or {}
    match message["method"]:
        case "initialize":
            info = {"name": "orderly", "version": "1"}
            capabilities: dict[str, Any] = {"tools": {}, "resources": {}, "prompts": {}}
            return {"result": {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}}
        case "ping":
            return {"result": {}}
        case "tools/list":
            return {"result": {"tools": [tool(name) for name in TOOLS]}}
        case "tools/call":
            return {"result": called(parameters["name"], parameters.get("arguments") or {})}
        case "resources/list":
            return {"result": {"resources": [{"uri": uri, "name": uri} for uri in RESOURCES]}}
        case "resources/templates/list":
            return {"result": {"resourceTemplates": [{"uriTemplate": "orderly://{name}", "name": "any"}]}}
        case "resources/read" if parameters["uri"] in RESOURCES:
            return {"result": {"contents": [{"uri": parameters["uri"], "text": "a resource"}]}}
        case "resources/read":
            return {"error": {"code": -32002, "message": "no such resource"}}
        case "prompts/list":
            return {"result": {"prompts": [{"name": name} for name in PROMPTS]}}
        case "prompts/get":
            said = {"type": "text", "text": f"{parameters['name']} somebody"}
            return {"result": {"messages": [{"role": "user", "content": said}]}}
    return {"error": {"code": -32601, "message": "Method not found"}}


def tool(name: str) -> dict[str, Any]:
    """A tool as it is listed."""
    schema: dict[str, Any] = {"type": "object"}
    if name == "add":
        number = {"type": "number"}
        schema |= {"properties": {"a": number, "b": number}, "required": ["a", "b"]}
    return {"name": name, "description": f"Does {name}.", "inputSchema": schema}


def called(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a tool answers."""
    if name == "fail":
        return {"content": [{"type": "text", "text": "it did not work"}], "isError": True}
    text = str(arguments["a"] + arguments["b"]) if name == "add" else json.dumps(arguments)
    return {"content": [{"type": "text", "text": text}]}


if __name__ == "__main__":
    main()
