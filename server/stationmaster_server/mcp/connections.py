"""What this server's parts ask of MCP servers. The connections behind it are made on demand and bounded in number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from uuid import UUID

from stationmaster_server.config.mcp import McpSettings
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    StationmasterError,
    Unavailable,
)
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Fault, Lost, Refused
from stationmaster_server.mcp.model import (
    CallResult,
    Check,
    Content,
    FilledPrompt,
    Prompt,
    Resource,
    TextContent,
    Tool,
)
from stationmaster_server.mcp.pool import Pool
from stationmaster_server.mcp.resolving import Resolve, unresolved
from stationmaster_server.mcp.slots import Counters, Listed, Slot, Target
from stationmaster_server.mcp.telling import Teller

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from stationmaster_server.mcp.connection import Connection
    from stationmaster_server.mcp.transport_http import HttpClients

__all__ = ["CallListener", "Connections", "Counters", "Target"]

T = TypeVar("T")

_ATTEMPTS = 3
_INVALID_PARAMS, _RESOURCE_NOT_FOUND, _HEADER_MISMATCH = -32602, -32002, -32020


class CallListener(Protocol):
    """Hears what a server tells while a call runs. Its methods must not wait."""

    def progress(self, message: str, fraction: float | None) -> None:
        """The server got on; `fraction` is of 1, where it is known."""

    def log(self, level: str, logger: str, text: str) -> None:
        """The server has something to say."""


class Connections:
    """Calls to MCP servers, over connections that are shared, watched and bounded.

    Raises Unavailable(MCP_SERVER_UNAVAILABLE), FailedPrecondition(MCP_SERVER_FAULT, COMMAND_REFUSED, ADDRESS_REFUSED),
    PermissionDenied(TOOL_DENIED), Aborted(MCP_CALL_UNCERTAIN), NotFound, InvalidArgument, DeadlineExceeded and
    ResourceExhausted(SERVER_OVERLOADED).
    """

    def __init__(
        self,
        settings: McpSettings,
        *,
        built_in: Mapping[str, Callable[[Tenant], MCPServer]],
        http: HttpClients,
        bounds: Bounds | None = None,
        resolve: Resolve = unresolved,
    ) -> None:
        self._bounds = bounds or Bounds()
        self._pool = Pool(settings, built_in, http, self._bounds, resolve)

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        return self._pool.counters

    @property
    def open_now(self) -> int:
        """How many connections are open."""
        return self._pool.open_now

    async def tools(self, target: Target) -> tuple[Tool, ...]:
        """The tools, also those that cannot be used; the same tuple until the server's list changed."""
        return cast("tuple[Tool, ...]", (await self._list(target, "tools")).items)

    async def resources(self, target: Target) -> tuple[Resource, ...]:
        """The resources and their templates."""
        return cast("tuple[Resource, ...]", (await self._list(target, "resources")).items)

    async def prompts(self, target: Target) -> tuple[Prompt, ...]:
        """The prompts."""
        return cast("tuple[Prompt, ...]", (await self._list(target, "prompts")).items)

    async def call(
        self,
        target: Target,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout: timedelta | None = None,
        listener: CallListener | None = None,
    ) -> CallResult:
        """Call a tool, at most once unless it is idempotent. The shorter of `timeout` and the server's own holds."""
        self.counters.calls += 1
        try:
            async with _within(target, repr(tool), timeout):
                found = await self._callable_tool(target, tool)
                self._check_arguments(found, arguments)

                async def work(_: Slot, connection: Connection) -> CallResult:
                    from stationmaster_server.mcp.listening import Listener

                    heard = Listener(listener, connection.reader)
                    try:
                        result = await connection.call(tool, arguments, heard)
                    except Refused as refused:
                        if refused.code == _HEADER_MISMATCH:  # the tool is another by now
                            connection.changes["tools"] += 1
                        return CallResult((TextContent(f"{refused.text} (error {refused.code})"),), is_error=True)
                    return connection.reader.result(result)

                return await self._run(target, work, repr(tool), idempotent=target.server.is_idempotent(found))
        except StationmasterError:
            self.counters.errors += 1
            raise

    async def check_call(self, target: Target, tool: str, arguments: Mapping[str, Any]) -> None:
        """Raises what `call` would raise before anything is called: NotFound, InvalidArgument, PermissionDenied."""
        self._check_arguments(await self._callable_tool(target, tool), arguments)

    async def read(
        self, target: Target, uri: str, *, timeout: timedelta | None = None
    ) -> tuple[tuple[Content, ...], bool]:
        """The content of a resource, and whether some was left out."""

        async def work(_: Slot, connection: Connection) -> tuple[tuple[Content, ...], bool]:
            try:
                result = await connection.read(uri)
            except Refused as refused:
                if refused.code == _RESOURCE_NOT_FOUND:
                    raise NotFound("MCP resource", uri) from None
                if refused.code == _INVALID_PARAMS:
                    raise InvalidArgument.field("uri", refused.text) from None
                raise
            return connection.reader.contents(result)

        async with _within(target, repr(uri), timeout):
            return await self._run(target, work, repr(uri), idempotent=True)

    async def prompt(
        self, target: Target, name: str, arguments: Mapping[str, str], *, timeout: timedelta | None = None
    ) -> FilledPrompt:
        """A prompt with its arguments filled in."""

        async def work(_: Slot, connection: Connection) -> FilledPrompt:
            try:
                result = await connection.prompt(name, arguments)
            except Refused as refused:
                if refused.code == _INVALID_PARAMS:
                    raise InvalidArgument.field("arguments", refused.text) from None
                raise
            return connection.reader.filled(result)

        async with _within(target, repr(name), timeout):
            found = next((one for one in await self.prompts(target) if one.name == name), None)
            if found is None:
                raise NotFound("MCP prompt", name)
            for argument in found.arguments:
                if argument.required and argument.name not in arguments:
                    raise InvalidArgument.field(f"arguments.{argument.name}", "is required by the prompt")
            return await self._run(target, work, repr(name), idempotent=True)

    async def check(self, target: Target, *, timeout: timedelta | None = None) -> Check:
        """How the server is: connects, pings and lists. What is wrong stands in the answer, which comes in time."""
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                return await self.connect(target)
        except (Unavailable, FailedPrecondition, DeadlineExceeded, NotFound, PermissionDenied) as error:
            return Check(healthy=False, problem=error.message)
        except TimeoutError:
            limit = 0.0 if timeout is None else timeout.total_seconds()
            why = self._pool.with_complaint(target, f"it did not answer within {limit:.3g} s")
            return Check(healthy=False, problem=Teller(target.server).unavailable(why).message)

    async def connect(self, target: Target) -> Check:
        """As `check`, of a server that can be used; what is wrong with another one is raised."""
        async with self._pool.use(target, force=True) as (_, connection):
            try:
                ping = await connection.ping()
            except Lost as lost:
                raise Teller(target.server).unavailable(lost.cause.why) from None
            latency, info = connection.connect_latency, connection.info()
        lists = {kind: await self._list(target, kind) for kind in ("tools", "resources", "prompts")}
        warnings = [
            f"it has more than {len(listed.items):,} {kind}: the rest is left out"
            for kind, listed in lists.items()
            if listed.is_cut
        ]
        unusable = [tool for tool in lists["tools"].items if tool.unusable_reason]
        warnings += [f"tool {tool.name!r} cannot be used: {tool.unusable_reason}" for tool in unusable[:20]]
        if len(unusable) > 20:
            warnings.append(f"{len(unusable) - 20} more tools cannot be used")
        return Check(
            healthy=True,
            connect_latency=latency,
            ping_latency=ping,
            info=info,
            tools=len(lists["tools"].items),
            resources=len(lists["resources"].items),
            prompts=len(lists["prompts"].items),
            warnings=tuple(warnings),
        )

    @property
    def sessions(self) -> tuple[UUID, ...]:
        """The MCP sessions that have a connection here."""
        return self._pool.sessions

    async def close_session(self, session_id: UUID) -> None:
        """End the connection of an MCP session, if it is here."""
        await self._pool.close_session(session_id)

    async def forget(self, uid: UUID) -> None:
        """A server was changed or deleted: its connections end when idle."""
        await self._pool.forget(uid)

    async def evict_idle(self) -> int:
        """Close what nobody used for a while, but those of MCP sessions; how many."""
        return await self._pool.evict_idle()

    async def close(self) -> None:
        """End all connections; returns when no process of theirs is left."""
        await self._pool.close()

    async def _list(self, target: Target, kind: str) -> Listed:
        async def work(slot: Slot, connection: Connection) -> Listed:
            async with slot.listing[kind]:
                listed, change = slot.lists.get(kind), connection.changes[kind]
                if listed is None or listed.connection is not connection or listed.change != change:
                    items, is_cut = await connection.list_all(kind)
                    if listed is not None and listed.items == items:
                        items = listed.items
                    listed = slot.lists[kind] = Listed(items, is_cut, connection, change)
                return listed

        limit = self._bounds.list_timeout
        return await self._run(target, work, f"for its {kind}", idempotent=True, limit=limit)

    async def _callable_tool(self, target: Target, name: str) -> Tool:
        server = target.server
        found = next((tool for tool in await self.tools(target) if tool.name == name), None)
        if found is None:
            raise NotFound("MCP tool", name)
        if found.unusable_reason:
            raise Teller(server).fault(f"tool {name!r} cannot be used: {found.unusable_reason}")
        if not server.allows(name):
            text = (
                f"MCP server {server.server_id!r} may not be asked for {name!r}: add it to the server's allowed_tools"
            )
            raise PermissionDenied(Reason.TOOL_DENIED, text)
        return found

    def _check_arguments(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        try:
            size = len(json.dumps(arguments))
        except RecursionError:
            raise InvalidArgument.field("arguments", "are nested too deeply") from None
        if size > self._bounds.argument_bytes:
            raise InvalidArgument.field("arguments", f"may have at most {self._bounds.argument_bytes:,} bytes")
        from stationmaster_server.mcp.schemas import check_arguments

        check_arguments(tool.name, tool.input_schema, arguments)

    async def _run(
        self,
        target: Target,
        work: Callable[[Slot, Connection], Awaitable[T]],
        what: str,
        *,
        idempotent: bool,
        limit: timedelta | None = None,
    ) -> T:
        """Do it on a live connection; again on another one where it cannot have happened, or may happen twice."""
        teller, limit = Teller(target.server), limit or target.server.call_timeout
        for attempt in range(1, _ATTEMPTS + 1):
            async with self._pool.use(target) as (slot, connection):
                try:
                    async with asyncio.timeout(limit.total_seconds()):
                        return await work(slot, connection)
                except TimeoutError:
                    connection.suspicious = True
                    raise teller.late(what, limit, uncertain=not idempotent) from None
                except asyncio.CancelledError:
                    connection.suspicious = True
                    raise
                except Fault as fault:
                    raise teller.fault(fault.why, fault.reason) from None
                except Refused as refused:
                    raise teller.fault(f"it answered {what} with error {refused.code}: {refused.text}") from None
                except Lost as lost:
                    self.counters.lost += 1
                    self._pool.retire(slot, connection)
                    if lost.cause.is_fault:
                        raise teller.ended(lost.cause) from None
                    if lost.sent and not idempotent:
                        raise teller.uncertain(what, lost.cause.why) from None
                    if attempt == _ATTEMPTS:
                        raise teller.unavailable(lost.cause.why) from None
        raise AssertionError("unreachable")


class _Deadline:
    """The caller's own limit, told as such."""

    def __init__(self, target: Target, what: str, limit: timedelta) -> None:
        self._error = Teller(target.server).late(what, limit)
        self._timeout = asyncio.timeout(limit.total_seconds())

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        try:
            await self._timeout.__aexit__(*raised)
        except TimeoutError:
            raise self._error from None


def _within(target: Target, what: str, limit: timedelta | None) -> AbstractAsyncContextManager[None]:
    return nullcontext() if limit is None else _Deadline(target, what, limit)
