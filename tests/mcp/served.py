"""What tests of McpService share: the generated stub, servers to register, and what calls are refused with."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from stationmaster.v1 import audit_pb2, audit_pb2_grpc, identity_pb2, identity_pb2_grpc, mcp_pb2_grpc
from stationmaster.v1 import mcp_pb2 as pb

from tests.contract.world import code_of, reason_of
from tests.fixtures.server import RunningServer
from tests.mcp import misbehaving

ORDERLY = Path(__file__).parent / "orderly.py"
USER, ORGANIZATION, BUILT_IN = pb.MCP_LEVEL_USER, pb.MCP_LEVEL_ORGANIZATION, pb.MCP_LEVEL_BUILT_IN


@asynccontextmanager
async def connected(server: RunningServer, key: str | None = "") -> AsyncIterator[Any]:
    """The service, for the owner of a key."""
    async with server.channel(key) as channel:
        yield mcp_pb2_grpc.McpServiceStub(channel)


def orderly(**environment: str) -> pb.McpStdio:
    """The server that behaves."""
    return pb.McpStdio(command=sys.executable, arguments=["-I", "-S", str(ORDERLY)], environment=environment)


def unruly(mode: str = "normal", **environment: str) -> pb.McpStdio:
    """The server that misbehaves when it is told to."""
    arguments = ["-I", "-S", str(misbehaving.PROGRAM), "stdio", mode]
    return pb.McpStdio(command=sys.executable, arguments=arguments, environment=environment)


def registration(server_id: str = "orderly", **fields: Any) -> pb.RegisterMcpServerRequest:
    """A request to register the server that behaves, or what the fields say."""
    if not {"stdio", "http"} & fields.keys():
        fields["stdio"] = orderly()
    outer = {name: fields.pop(name) for name in ("validate_only", "request_id") if name in fields}
    return pb.RegisterMcpServerRequest(mcp_server_id=server_id, mcp_server=pb.McpServer(**fields), **outer)


async def register(stub: Any, server_id: str = "orderly", **fields: Any) -> pb.McpServer:
    """A registered server."""
    made: pb.McpServer = await stub.RegisterMcpServer(registration(server_id, **fields))
    return made


async def update(stub: Any, server_id: str, mask: list[str] | None = None, **fields: Any) -> pb.McpServer:
    """A server changed."""
    message = pb.McpServer(name=f"mcpServers/{server_id}", **fields)
    request = pb.UpdateMcpServerRequest(mcp_server=message)
    if mask is not None:
        request.update_mask.paths.extend(mask)
    changed: pb.McpServer = await stub.UpdateMcpServer(request)
    return changed


def calling(
    tool: str, parent: str = "mcpServers/orderly", request_id: str = "", **arguments: Any
) -> pb.CallToolRequest:
    """A request to call a tool."""
    request = pb.CallToolRequest(parent=parent, tool=tool, request_id=request_id)
    request.arguments.update(arguments)
    return request


async def open_session(stub: Any, server_id: str = "orderly", **options: Any) -> pb.McpSession:
    """An open session."""
    opened: pb.McpSession = await stub.OpenMcpSession(
        pb.OpenMcpSessionRequest(server=f"mcpServers/{server_id}", **options)
    )
    return opened


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status of a call that failed."""

    code: str
    reason: str
    text: str


async def refusal(call: Awaitable[Any]) -> Refusal:
    """What a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return Refusal(code_of(raised.value), reason_of(raised.value), raised.value.details() or "")


async def member_key(server: RunningServer, role: identity_pb2.Role.ValueType = identity_pb2.ROLE_MEMBER) -> str:
    """The key of somebody else in the administrator's organization."""
    async with server.channel() as channel:
        identity: Any = identity_pb2_grpc.IdentityServiceStub(channel)
        user = identity_pb2.User(display_name="Somebody", role=role)
        made = await identity.CreateUser(identity_pb2.CreateUserRequest(user=user))
        key = identity_pb2.ApiKey(user=made.name)
        return str((await identity.CreateApiKey(identity_pb2.CreateApiKeyRequest(api_key=key))).secret)


async def trail(server: RunningServer, request: str = "", **fields: str) -> list[audit_pb2.AuditEvent]:
    """The events of the trail, of one request or with these values, oldest first."""
    conditions = [
        f'{name} = "{value}"' for name, value in {**({"request_id": request} if request else {}), **fields}.items()
    ]
    async with server.channel() as channel:
        audit: Any = audit_pb2_grpc.AuditServiceStub(channel)
        found = await audit.ListAuditEvents(audit_pb2.ListAuditEventsRequest(filter=" AND ".join(conditions)))
    return list(reversed(found.audit_events))


def named(request: str) -> tuple[tuple[str, str], ...]:
    """The metadata that names a request."""
    return (("stationmaster-request-id", request),)


def recorded(record: Path, method: str) -> list[dict[str, Any]]:
    """The messages of a method that the misbehaving server with RECORD in its environment got."""
    messages = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    return [message for message in messages if message.get("method") == method]
