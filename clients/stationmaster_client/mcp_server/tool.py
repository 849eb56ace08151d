"""Turns an async function into a tool: the caller's client, typed arguments, text and fields, errors with advice."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations

from stationmaster_client.errors import StationmasterError
from stationmaster_client.mcp_server.answer import Answer
from stationmaster_client.mcp_server.caller import Call, Callers
from stationmaster_client.mcp_server.errors import explain

F = TypeVar("F", bound=Callable[..., Awaitable[Answer]])
Body: TypeAlias = Callable[..., Awaitable[Answer]]
"""A tool's function: the Call first, then its arguments; its docstring is what models are told."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool before it belongs to a server."""

    function: Body
    title: str
    annotations: ToolAnnotations


TOOLS: list[Definition] = []
"""Every tool, in the order of the files that define them."""


def reads(title: str) -> Callable[[F], F]:
    """A tool that changes nothing."""
    return _register(title, read_only=True, destructive=False, idempotent=True)


def changes(
    title: str, *, destructive: bool = False, idempotent: bool = False, open_world: bool = False
) -> Callable[[F], F]:
    """A tool that changes something. `destructive`: not only by adding; `open_world`: agents' tools may do anything."""
    return _register(title, read_only=False, destructive=destructive, idempotent=idempotent, open_world=open_world)


def _register(
    title: str, *, read_only: bool, destructive: bool, idempotent: bool, open_world: bool = False
) -> Callable[[F], F]:
    annotations = ToolAnnotations(
        title=title,
        read_only_hint=read_only,
        destructive_hint=destructive,
        idempotent_hint=idempotent,
        open_world_hint=open_world,
    )

    def register(function: F) -> F:
        TOOLS.append(Definition(function, title, annotations))
        return function

    return register


def add(server: MCPServer[Any], definition: Definition, callers: Callers) -> None:
    """Give a server a tool that acts for whoever calls it."""
    function = definition.function
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]

    async def invoke(context: Context[Any, Any], **arguments: Any) -> CallToolResult:
        client = callers.client(context)
        try:
            answer = await function(Call(client, context), **arguments)
        except StationmasterError as error:
            raise ToolError(explain(error, client.connection.target)) from error
        return CallToolResult(
            content=[TextContent(type="text", text=answer.text())],
            structured_content=answer.model_dump(mode="json"),
            is_error=answer.failed(),
        )

    first = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context)
    parameters = [first, *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own)]
    returns = Annotated[CallToolResult, signature.return_annotation]
    vars(invoke)["__signature__"] = signature.replace(parameters=parameters, return_annotation=returns)
    invoke.__name__ = function.__name__
    invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": returns}
    server.add_tool(
        invoke,
        name=function.__name__,
        title=definition.title,
        description=inspect.getdoc(function),
        annotations=definition.annotations,
    )
