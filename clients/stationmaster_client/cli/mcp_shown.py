"""How MCP servers, and what they offer and answer, are printed for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stationmaster_client.cli.output import moment, plain

if TYPE_CHECKING:
    from stationmaster.v1 import mcp_pb2

    from stationmaster_client.cli.output import Output


def level_of(server: mcp_pb2.McpServer) -> str:
    """Whose a server is."""
    from stationmaster.v1 import mcp_pb2

    return plain(mcp_pb2.McpLevel.Name(server.level), "MCP_LEVEL")


def reached_by(server: mcp_pb2.McpServer) -> str:
    """Its command line or its URL."""
    match server.WhichOneof("transport"):
        case "stdio":
            return shlex.join((server.stdio.command, *server.stdio.arguments))
        case "http":
            return server.http.url
    return "this server itself"


def describe_server(out: Output, server: mcp_pb2.McpServer) -> None:
    """Print a server."""
    if out.as_json:
        out.json(server)
        return
    limit, patience = (time.ToTimedelta().total_seconds() for time in (server.call_timeout, server.connect_timeout))
    out.details(
        [
            ("server", server.name),
            ("level", level_of(server)),
            ("name", server.display_name),
            ("description", server.description),
            ("reached by", reached_by(server)),
            ("variables", ", ".join(sorted(server.stdio.environment))),
            ("headers", ", ".join(sorted(server.http.headers))),
            ("credentials", ", ".join(f"{name}={text}" for name, text in sorted(_named(server).items()))),
            ("state", "disabled" if server.disabled else ""),
            ("tools", ", ".join(server.allowed_tools)),
            ("idempotent", ", ".join(server.idempotent_tools)),
            ("annotations", "trusted" if server.trust_annotations else ""),
            ("limits", f"{limit:g} s a call, {patience:g} s to connect" if limit else ""),
            ("created", moment(server.create_time)),
            ("changed", moment(server.update_time)),
        ]
    )


def describe_check(out: Output, found: mcp_pb2.CheckMcpServerResponse) -> None:
    """Print how a server is that is well."""
    info = found.info
    out.details(
        [
            ("server", f"{info.name} {info.version}".strip()),
            ("protocol", info.protocol_version),
            ("offers", f"{found.tools} tools, {found.resources} resources, {found.prompts} prompts"),
            ("connects in", f"{found.connect_latency.ToTimedelta().total_seconds() * 1000:.0f} ms"),
            ("answers in", f"{found.ping_latency.ToTimedelta().total_seconds() * 1000:.1f} ms"),
            ("instructions", info.instructions),
        ]
    )
    for warning in found.warnings:
        out.note(f"warning: {warning}", style="yellow")


def print_contents(out: Output, contents: Iterable[mcp_pb2.McpContent]) -> None:
    """Texts as they are; of what is no text, what it is."""
    for content in contents:
        match content.WhichOneof("content"):
            case "text":
                out.print(content.text)
            case "image" | "audio" as kind:
                blob = content.image if kind == "image" else content.audio
                _describe(out, kind, blob.mime_type, len(blob.data))
            case "resource_link":
                out.print(f"{content.resource_link.uri}  {content.resource_link.name}".rstrip())
            case "resource" if content.resource.HasField("blob"):
                _describe(out, content.resource.uri, content.resource.mime_type, len(content.resource.blob))
            case "resource":
                out.print(content.resource.text)


def _describe(out: Output, what: str, mime_type: str, size: int) -> None:
    out.note(f"[{what}: {mime_type or 'bytes'}, {size:,} bytes; --json prints it in base64]")


def note_cut(out: Output, truncated: bool) -> None:
    """Say that an answer is not whole."""
    if truncated:
        out.note("The answer was larger: what is shown was cut.", style="yellow")


def plain_data(data: Any) -> Any:
    """A Struct as a dictionary."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(data)


def arguments_of(tool: mcp_pb2.McpTool) -> str:
    """The names of a tool's arguments; in brackets those that may be left out."""
    schema = plain_data(tool.input_schema)
    names, required = schema.get("properties"), schema.get("required")
    if not isinstance(names, dict):
        return ""
    needed = (
        [name for name in required if isinstance(name, str) and name in names] if isinstance(required, list) else []
    )
    # The message keeps no order of the names.
    return " ".join(needed + [f"[{name}]" for name in sorted(names) if name not in needed])


def hints_of(tool: mcp_pb2.McpTool) -> str:
    """What a server says of its tool."""
    said = tool.annotations
    return ", ".join(
        word
        for word, is_so in (
            ("read-only", said.read_only),
            ("destructive", said.destructive and not said.read_only),
            ("idempotent", said.idempotent),
        )
        if is_so
    )


def _named(server: mcp_pb2.McpServer) -> dict[str, str]:
    return dict(server.stdio.credential_environment) | dict(server.http.credential_headers)
