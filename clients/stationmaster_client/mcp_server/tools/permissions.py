"""Permission requests: tool calls of agents that wait for somebody's answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from stationmaster.v1 import event_pb2, session_pb2

from stationmaster_client.mcp_server.answer import (
    Answer,
    Limit,
    Paged,
    PageToken,
    compact,
    facts,
    moment,
    plain,
    struct,
)
from stationmaster_client.mcp_server.caller import Call
from stationmaster_client.mcp_server.tool import changes, reads


class Permission(Answer):
    """A tool call, or a turn at a limit, that waits for permission, or waited for it."""

    name: str
    state: str = Field(description="pending, allowed, denied, expired or withdrawn")
    tool: str = Field(description="the tool, or `limit` for a turn at a limit, named in the arguments")
    arguments: dict[str, Any]
    turn: str
    message: str
    created: str
    expires: str

    def text(self) -> str:
        """All that is known."""
        return facts(
            permission_request=self.name,
            state=self.state,
            tool=self.tool,
            arguments=compact(self.arguments, 4_000),
            message=self.message,
            turn=f"{self.turn} (wait_for_turn shows how it goes on)",
            asked=self.created,
            expires=self.expires,
        )

    def line(self) -> str:
        """The request on one line."""
        return f"{self.name}: {self.tool} {compact(self.arguments)} is {self.state}, asked {self.created}"


class Permissions(Paged):
    """Some permission requests."""

    permission_requests: list[Permission]

    def text(self) -> str:
        """One line each."""
        return self.more((request.line() for request in self.permission_requests), "Nothing waits for permission.")


def convert(request: session_pb2.PermissionRequest) -> Permission:
    """A permission request as tools show it."""
    return Permission(
        name=request.name,
        state=plain(event_pb2.PermissionState.Name(request.state), "PERMISSION_STATE"),
        tool=request.call.tool or "limit",
        arguments=_limit(request.limit) if request.HasField("limit") else struct(request.call.arguments),
        turn=request.turn,
        message=request.message,
        created=moment(request.create_time),
        expires=moment(request.expire_time),
    )


def _limit(limit: event_pb2.LimitReached) -> dict[str, Any]:
    return {"limit": limit.limit, "limit_value": limit.limit_value, "used_value": limit.used_value}


@reads("List permission requests")
async def list_permission_requests(
    call: Call,
    session: Annotated[str, Field(description="Only of this session; empty: of all.")] = "",
    only_pending: Annotated[bool, Field(description="Only those that wait for an answer.")] = True,
    limit: Limit = 20,
    page_token: PageToken = "",
) -> Permissions:
    """List the tool calls of agents that wait for somebody's permission."""
    condition = "state = PENDING" if only_pending else ""
    page = await call.client.permissions.list(session or "-", filter=condition, page_size=limit).page(page_token)
    found = [convert(item) for item in page.permission_requests]
    return Permissions(permission_requests=found, next_page_token=page.next_page_token)


@changes("Answer a permission request", destructive=True, idempotent=True, open_world=True)
async def resolve_permission(
    call: Call,
    permission_request: Annotated[str, Field(description="sessions/{id}/permissionRequests/{id}.")],
    decision: Annotated[
        Literal["allow_once", "allow_for_session", "deny"],
        Field(description="allow_for_session also allows later calls of the tool in this session."),
    ],
    message: Annotated[str, Field(description="With deny: what the agent is told.")] = "",
    edited_arguments: Annotated[
        dict[str, Any] | None, Field(description="With allow_once: run the tool with these arguments instead.")
    ] = None,
) -> Permission:
    """Let an agent's tool call run, or refuse it. Ask the user first, unless he told you how to answer."""
    if decision == "deny":
        return convert(await call.client.permissions.deny(permission_request, message))
    return convert(
        await call.client.permissions.allow(
            permission_request, for_session=decision == "allow_for_session", arguments=edited_arguments
        )
    )
