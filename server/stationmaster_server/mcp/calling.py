"""What callers ask MCP servers directly: tools, resources and prompts, of a server or over a session of their own."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    StationmasterError,
    Unavailable,
)
from stationmaster_server.identity.model import AuditEntry, Category, Outcome
from stationmaster_server.mcp import repeats
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import CallResult, Content, FilledPrompt, Prompt, Resource, Tool
from stationmaster_server.mcp.registry import Registry
from stationmaster_server.mcp.sessions import McpSessions

T = TypeVar("T")
# Of one page, written out: as a message, a schema may be five times as large as its JSON.
_MOST_CHARACTERS = 512 * 1024
_PATTERN = re.compile(r"[^\s()\[\]\"'<>]+")
Parent = str | UUID
"""A server's id, or a session's."""
Denied = Callable[[Transaction, Caller, str], Awaitable[str | None]]
"""Why a policy of the caller or its organization denies a tool (`{server}.{tool}`); None when none does."""


class McpCalls:
    """Asks MCP servers on behalf of a caller. `Raises` of `Connections` come through as they are."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        registry: Registry,
        sessions: McpSessions,
        connections: Connections,
        denied: Denied,
    ) -> None:
        self._database = database
        self._audit = audit
        self._registry = registry
        self._sessions = sessions
        self._connections = connections
        self._denied = denied

    async def tools(self, caller: Caller, parent: Parent, pattern: str, page: PageRequest) -> tuple[str, Page[Tool]]:
        """A page of a server's tools by name, and the server's id."""
        matches = _matching(pattern)
        async with self._target(caller, parent) as target:
            tools = await self._connections.tools(target)
        found = [_shown(tool, target) for tool in tools if matches(tool.name)]
        return target.server.server_id, _page(found, lambda tool: tool.name, page)

    async def resources(self, caller: Caller, parent: Parent, pattern: str, page: PageRequest) -> Page[Resource]:
        """A page of a server's resources and templates by URI."""
        matches = _matching(pattern)
        async with self._target(caller, parent) as target:
            found = [one for one in await self._connections.resources(target) if matches(one.uri)]
        return _page(found, lambda one: one.uri, page)

    async def prompts(self, caller: Caller, parent: Parent, pattern: str, page: PageRequest) -> Page[Prompt]:
        """A page of a server's prompts by name."""
        matches = _matching(pattern)
        async with self._target(caller, parent) as target:
            found = [one for one in await self._connections.prompts(target) if matches(one.name)]
        return _page(found, lambda one: one.name, page)

    async def read(
        self, caller: Caller, parent: Parent, uri: str, left: timedelta | None
    ) -> tuple[tuple[Content, ...], bool]:
        """The contents of a resource, and whether some was left out."""
        async with self._target(caller, parent) as target:
            return await self._connections.read(target, uri, timeout=left)

    async def prompt(
        self, caller: Caller, parent: Parent, name: str, arguments: Mapping[str, str], left: timedelta | None
    ) -> FilledPrompt:
        """A prompt with its arguments filled in."""
        async with self._target(caller, parent) as target:
            return await self._connections.prompt(target, name, arguments, timeout=left)

    async def call(
        self, caller: Caller, parent: Parent, tool: str, arguments: Mapping[str, Any], left: timedelta | None
    ) -> tuple[CallResult, timedelta]:
        """Call a tool, once for each request id: its answer and how long it took. `left` is what the caller waits.

        Raises PermissionDenied(TOOL_DENIED), Aborted(CONCURRENT_CHANGE: the first of two is under way;
        MCP_CALL_UNCERTAIN), and what `Connections.call` raises.
        """
        async with self._database.tenant(caller.tenant, read=True) as tx:
            known = await repeats.look(tx, caller)
        if known is not None:
            return known.result()
        async with self._target(caller, parent) as target:
            return await self._call(caller, target, tool, arguments, left)

    async def _call(
        self, caller: Caller, target: Target, tool: str, arguments: Mapping[str, Any], left: timedelta | None
    ) -> tuple[CallResult, timedelta]:
        await self._connections.check_call(target, tool, arguments)
        longest = target.server.longest_call
        limit = longest if left is None else min(longest, left)
        known = await self._begin(caller, target, tool, limit)
        if known is not None:
            return known.result()
        began = time.perf_counter()
        try:
            result = await self._connections.call(target, tool, arguments, timeout=left)
        except StationmasterError as error:
            await self._failed(caller, target, tool, error.reason, done=_may_be_done(error))
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._failed(caller, target, tool, Reason.CANCELLED, done=True))
            raise
        took = timedelta(microseconds=int((time.perf_counter() - began) * 1_000_000))
        if caller.request_key is not None:
            async with self._database.tenant(caller.tenant) as tx:
                tx.audited = True  # when it was called
                await repeats.remember(tx, caller, result, took)
        return result, took

    async def _begin(self, caller: Caller, target: Target, tool: str, limit: timedelta) -> repeats.Call | None:
        """Write down that the call is made, before it is; what is known of an earlier one of the same request id."""
        name = f"{target.server.server_id}.{tool}"
        async with self._database.tenant(caller.tenant) as tx:
            known = await repeats.begin(tx, caller, limit)
            if known is None:
                why = await self._denied(tx, caller, name)
                if why is not None:
                    raise PermissionDenied(Reason.TOOL_DENIED, f"{name} is denied: {why}")
                await self._write_audit(tx, caller, target, "mcp.call", tool)
            return known

    async def _failed(self, caller: Caller, target: Target, tool: str, reason: Reason, *, done: bool) -> None:
        """That the call was made is in the trail already; add that it failed. Its id is free if nothing was done."""
        async with self._database.tenant(caller.tenant) as tx:
            await (repeats.leave_uncertain if done else repeats.forget)(tx, caller)
            await self._write_audit(tx, caller, target, "mcp.fail", tool, Outcome.FAILED, reason.value)

    @asynccontextmanager
    async def _target(self, caller: Caller, parent: Parent) -> AsyncIterator[Target]:
        if isinstance(parent, UUID):
            async with self._sessions.using(caller, parent) as target:
                yield target
        else:
            yield Target(caller.tenant, await self._registry.usable(caller.tenant, parent))

    async def _write_audit(
        self,
        tx: Transaction,
        caller: Caller,
        target: Target,
        action: str,
        tool: str,
        outcome: Outcome = Outcome.ALLOWED,
        reason: str = "",
    ) -> None:
        server = f"mcpServers/{target.server.server_id}"
        name = server if target.session_id is None else f"mcpSessions/{target.session_id}"
        details = {"tool": tool[:256], "server": server}
        await self._audit.write(tx, caller, AuditEntry(action, name, outcome, Category.BUSINESS, reason, details))


def _matching(pattern: str) -> Callable[[str], bool]:
    if not pattern:
        return lambda _: True
    if not _PATTERN.fullmatch(pattern):
        advice = "expected a name, or a pattern with `*`, for example get_*"
        raise InvalidArgument.field("filter", advice, Reason.INVALID_FILTER)
    expected = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    return lambda name: expected.fullmatch(name) is not None


def _shown(tool: Tool, target: Target) -> Tool:
    if tool.unusable_reason or target.server.allows(tool.name):
        return tool
    return replace(tool, unusable_reason="it is not one of the server's allowed_tools")


def _may_be_done(error: StationmasterError) -> bool:
    """Whether the tool may have run before this came of it."""
    certain = isinstance(error, NotFound | InvalidArgument | PermissionDenied | ResourceExhausted | Unavailable)
    return not certain and error.reason not in (Reason.COMMAND_REFUSED, Reason.ADDRESS_REFUSED)


def _page(items: Sequence[T], key: Callable[[T], str], page: PageRequest) -> Page[T]:
    """The page of a list that is whole in memory, ordered by a key and, where two have the same, by their place.

    It ends early where a message would become larger than clients take.
    """
    ordered = sorted(enumerate(items), key=lambda pair: (key(pair[1]), pair[0]))
    keyed = [((key(item), place), item) for place, (_, item) in enumerate(ordered)]
    left = [pair for pair in keyed if page.after is None or pair[0] > tuple(page.after)]
    shown = left[: _fitting([item for _, item in left[: page.size]])]
    cursors = [cursor for cursor, _ in shown]
    return Page([item for _, item in shown], cursors[-1] if len(left) > len(shown) else None, cursors)


def _fitting(items: Sequence[object]) -> int:
    """How many of these fit into one message, but one at least."""
    room = _MOST_CHARACTERS
    for count, item in enumerate(items):
        room -= len(repr(item))
        if room < 0 and count:
            return count
    return len(items)
