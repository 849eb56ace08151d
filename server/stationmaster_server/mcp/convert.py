"""MCP servers, sessions and answers: protobuf to model and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from datetime import timedelta
from typing import Any, assert_never
from uuid import UUID

from google.protobuf.struct_pb2 import Struct
from stationmaster.v1 import mcp_pb2 as pb

from stationmaster_server.credentials.using import reference
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.mcp.model import (
    BlobContent,
    BuiltIn,
    CallResult,
    Check,
    Content,
    FilledPrompt,
    Http,
    Level,
    McpServer,
    McpSession,
    Prompt,
    Resource,
    ResourceContent,
    ServerInfo,
    SessionState,
    Stdio,
    TextContent,
    Tool,
    Transport,
)
from stationmaster_server.wire.fields import duration, span, struct, timestamp
from stationmaster_server.wire.names import parse

SERVER_NAME = "mcpServers/{server}"
SESSION_NAME = "mcpSessions/{session}"

_LEVELS = {level: pb.McpLevel.Value(f"MCP_LEVEL_{level}") for level in Level}
_LEVEL_OF = {number: level for level, number in _LEVELS.items()}
_STATES = {state: pb.McpSessionState.Value(f"MCP_SESSION_STATE_{state}") for state in SessionState}
# Below the 4 MiB that gRPC clients take by default.
_MOST_BYTES = 3_500_000
_DEFAULT = McpServer("", Level.USER, BuiltIn(""))
_PLAIN = (
    "display_name",
    "description",
    "disabled",
    "trust_annotations",
)


def level_of(number: pb.McpLevel.ValueType) -> Level | None:
    """The level; None for the nearest."""
    return _LEVEL_OF.get(number)


def parent_of(name: str) -> str | UUID:
    """The server's id, or the session's. Raises InvalidArgument(INVALID_NAME)."""
    if name.startswith("mcpSessions/"):
        return parse(SESSION_NAME, name, field="parent")
    return server_id_of(name, "parent")


def server_id_of(name: str, field: str = "name") -> str:
    """The id in a server's name; those of built-in servers may hold an underscore."""
    parse(SERVER_NAME, name.replace("_", "-"), str, field=field)
    return name.partition("/")[2]


def new_server(server_id: str, message: pb.McpServer) -> McpServer:
    """What is to be registered."""
    server = McpServer(server_id, level_of(message.level) or Level.USER, _transport(message))
    fields = {name for name in (*_PLAIN, "allowed_tools", "idempotent_tools") if getattr(message, name)}
    fields |= {name for name in ("call_timeout", "connect_timeout") if message.HasField(name)}
    return replace(server, **server_changes(message, fields))


def server_changes(message: pb.McpServer, fields: Set[str]) -> dict[str, Any]:
    """The new values of these fields, by their names in `McpServer`."""
    changes: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN if name in fields}
    for name in ("allowed_tools", "idempotent_tools"):
        if name in fields:
            changes[name] = tuple(getattr(message, name))
    for name in ("call_timeout", "connect_timeout"):
        if name in fields:
            changes[name] = span(message, name) or getattr(_DEFAULT, name)
    if fields & {"stdio", "http"}:
        changes["transport"] = _transport(message)
    return changes


def _transport(message: pb.McpServer) -> Transport:
    match message.WhichOneof("transport"):
        case "stdio":
            stdio = message.stdio
            named = {name: reference(text) for name, text in stdio.credential_environment.items()}
            return Stdio(stdio.command, tuple(stdio.arguments), dict(stdio.environment), named)
        case "http":
            named = {name: reference(text) for name, text in message.http.credential_headers.items()}
            return Http(message.http.url, dict(message.http.headers), named)
    raise InvalidArgument.field("mcp_server.transport", "stdio or http is required")


def server_to_proto(server: McpServer) -> pb.McpServer:
    """A server as its message; of its secrets only the names."""
    registered = server.level is not Level.BUILT_IN
    message = pb.McpServer(
        name=f"mcpServers/{server.server_id}",
        uid=str(server.uid or ""),
        level=_LEVELS[server.level],
        display_name=server.display_name,
        description=server.description,
        disabled=server.disabled,
        allowed_tools=server.allowed_tools,
        idempotent_tools=server.idempotent_tools,
        trust_annotations=server.trust_annotations,
        call_timeout=duration(server.call_timeout),
        connect_timeout=duration(server.connect_timeout),
        etag=server.etag,
        create_time=timestamp(server.created_at) if registered else None,
        update_time=timestamp(server.updated_at) if registered else None,
    )
    match server.transport:
        case Stdio(command, arguments, environment):
            names = dict.fromkeys(environment, "")
            named = server.transport.credentials
            message.stdio.CopyFrom(
                pb.McpStdio(command=command, arguments=arguments, environment=names, credential_environment=named)
            )
        case Http(url, headers):
            named = server.transport.credentials
            message.http.CopyFrom(pb.McpHttp(url=url, headers=dict.fromkeys(headers, ""), credential_headers=named))
        case BuiltIn():
            pass
        case _:
            assert_never(server.transport)
    return message


def session_to_proto(session: McpSession) -> pb.McpSession:
    """A session as its message."""
    return pb.McpSession(
        name=f"mcpSessions/{session.id}",
        server=f"mcpServers/{session.server_id}",
        user=f"users/{session.user_id}",
        state=_STATES[session.state],
        state_reason=session.state_reason,
        idle_timeout=duration(session.idle_timeout),
        create_time=timestamp(session.created_at),
        last_used_time=timestamp(session.last_used_at),
    )


def tool_to_proto(server_id: str, tool: Tool) -> pb.McpTool:
    """A tool as its message."""
    return pb.McpTool(
        tool=tool.name,
        qualified_name=f"{server_id}.{tool.name}",
        title=tool.title,
        description=tool.description,
        input_schema=struct(tool.input_schema),
        output_schema=_struct(tool.output_schema),
        annotations=pb.McpToolAnnotations(
            read_only=tool.read_only,
            destructive=tool.destructive,
            idempotent=tool.idempotent,
            open_world=tool.open_world,
        ),
        unusable_reason=tool.unusable_reason,
    )


def resource_to_proto(resource: Resource) -> pb.McpResource:
    """A resource as its message."""
    return pb.McpResource(
        uri=resource.uri,
        is_template=resource.is_template,
        resource_name=resource.name,
        title=resource.title,
        description=resource.description,
        mime_type=resource.mime_type,
        size_bytes=resource.size_bytes,
    )


def prompt_to_proto(prompt: Prompt) -> pb.McpPrompt:
    """A prompt as its message."""
    arguments = [
        pb.McpPrompt.Argument(name=one.name, description=one.description, required=one.required)
        for one in prompt.arguments
    ]
    return pb.McpPrompt(prompt=prompt.name, title=prompt.title, description=prompt.description, arguments=arguments)


def content_to_proto(content: Content) -> pb.McpContent:
    """A piece of an answer as its message."""
    match content:
        case TextContent(text):
            return pb.McpContent(text=text)
        case BlobContent(kind, data, mime_type):
            blob = pb.McpContent.Blob(data=data, mime_type=mime_type)
            return pb.McpContent(image=blob) if kind == "image" else pb.McpContent(audio=blob)
        case ResourceContent():
            resource = pb.McpContent.Resource(
                uri=content.uri,
                name=content.name,
                mime_type=content.mime_type,
                description=content.description,
            )
            if content.text is not None:
                resource.text = content.text
            elif content.blob is not None:
                resource.blob = content.blob
            by_reference = resource.WhichOneof("content") is None
            return pb.McpContent(resource_link=resource) if by_reference else pb.McpContent(resource=resource)
        case _:
            assert_never(content)


def contents_to_proto(contents: Iterable[Content]) -> list[pb.McpContent]:
    """The pieces of an answer."""
    return [content_to_proto(content) for content in contents]


def result_to_proto(result: CallResult, took: timedelta) -> pb.CallToolResponse:
    """A tool's answer as its message."""
    message = pb.CallToolResponse(
        content=contents_to_proto(result.content),
        structured_content=_struct(result.structured),
        is_error=result.is_error,
        truncated=result.truncated,
        duration=duration(took),
    )
    if message.ByteSize() > _MOST_BYTES:  # as a message, data may be several times as large as its JSON
        message.ClearField("structured_content")
        message.truncated = True
    return message


def filled_to_proto(prompt: FilledPrompt) -> pb.GetMcpPromptResponse:
    """A filled prompt as its message."""
    messages = [
        pb.GetMcpPromptResponse.PromptMessage(role=message.role, content=content_to_proto(message.content))
        for message in prompt.messages
    ]
    return pb.GetMcpPromptResponse(description=prompt.description, messages=messages, truncated=prompt.truncated)


def check_to_proto(check: Check) -> pb.CheckMcpServerResponse:
    """How a server is, as its message."""
    return pb.CheckMcpServerResponse(
        healthy=check.healthy,
        problem=check.problem,
        connect_latency=duration(check.connect_latency),
        ping_latency=duration(check.ping_latency),
        info=None if check.info is None else _info(check.info),
        tools=check.tools,
        resources=check.resources,
        prompts=check.prompts,
        warnings=check.warnings,
    )


def _info(info: ServerInfo) -> pb.McpServerInfo:
    return pb.McpServerInfo(
        name=info.name,
        version=info.version,
        protocol_version=info.protocol_version,
        instructions=info.instructions,
        capabilities=info.capabilities,
    )


def _struct(values: Mapping[str, Any] | None) -> Struct | None:
    return None if values is None else struct(values)
