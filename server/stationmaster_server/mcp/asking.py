"""What is asked of a server on a connection: requests, what they may answer, and how failures are told apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import anyio
import mcp_types as types
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from stationmaster_server.mcp import session as sessions
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Ended, Fate, Fault, Lost, Refused, what_is_wrong
from stationmaster_server.mcp.listening import Listener
from stationmaster_server.mcp.model import BuiltIn, McpServer, ServerInfo, Stdio
from stationmaster_server.mcp.reading import Reader
from stationmaster_server.mcp.transport_http import Failure, Kind

T = TypeVar("T")

_INPUT_ROUNDS = 5
# The library tells of what it saw itself as if the server had said it.
_CLOSED = "Connection closed"
_LIBRARYS_FAULTS = ("SSE stream failed: ", "Redirect to ", "Unexpected content type: ")
_LIBRARYS_LOSSES = ("SSE stream ended without a response", "SSE stream ended and reconnection")
_CALL_RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)
_READ_RESULT: TypeAdapter[types.ReadResourceResult | types.InputRequiredResult] = TypeAdapter(
    types.ReadResourceResult | types.InputRequiredResult
)
_PROMPT_RESULT: TypeAdapter[types.GetPromptResult | types.InputRequiredResult] = TypeAdapter(
    types.GetPromptResult | types.InputRequiredResult
)


class Asking:
    """A connection as those see it who use it."""

    def __init__(self, server: McpServer, reader: Reader, bounds: Bounds) -> None:
        self.reader = reader
        self.users = 0
        """Who holds it now."""
        self.made_at = self.used_at = time.monotonic()
        self.suspicious = False
        """A call on it was not answered in time: it is pinged before it is used again."""
        self.changes = {"tools": 0, "resources": 0, "prompts": 0}
        """How often each list changed."""
        self._server = server
        self._bounds = bounds
        self._fate = Fate()
        self._watch = sessions.Watch()
        self._listeners: set[Listener] = set()
        self._session: ClientSession | None = None
        self._stop = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether it can be used."""
        return self._session is not None and not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether it has ended or is about to."""
        return self._fate.cause is not None or self._stop.is_set()

    @property
    def silent_for(self) -> timedelta:
        """How long nothing was heard of the server."""
        return timedelta(seconds=time.monotonic() - self._watch.heard_at)

    @property
    def is_remote(self) -> bool:
        """Whether the server can go away."""
        return not isinstance(self._server.transport, BuiltIn)

    def with_complaint(self, why: str) -> str:
        """`why`, and what the server said last, where it can be known."""
        return self._fate.with_complaint(why)

    async def ping(self) -> timedelta:
        """How long the server takes to show that it lives; raises Lost when it does not."""
        began = time.monotonic()
        limit = self._bounds.ping_timeout.total_seconds()
        try:
            async with asyncio.timeout(limit):
                await self._request(_ping)
        except TimeoutError:
            raise Lost(Ended(f"it did not answer a ping within {limit:g} s"), sent=False) from None
        except (Refused, Fault):  # it lives
            pass
        self.suspicious = False
        return timedelta(seconds=time.monotonic() - began)

    def info(self) -> ServerInfo:
        """What the server says about itself."""
        session = self._current()
        version = session.protocol_version or ""
        return self.reader.info(session.server_info, version, session.server_capabilities, session.instructions)

    def _current(self) -> ClientSession:
        if self._session is None or self.is_over:
            raise Lost(self._fate.cause or Ended("the connection was closed"), sent=False)
        return self._session

    async def list_all(self, kind: str) -> tuple[Any, bool]:
        """The tools, resources or prompts (`kind`), and whether some were left out."""
        if getattr(self._current().server_capabilities, kind, None) is None:
            return (), False
        if kind == "tools":
            self._watch.unreadable.clear()
            tools, cut = await self._pages(ClientSession.list_tools, "tools")
            unreadable = self._watch.unreadable.pop("tools/list", [])[: self._bounds.items]
            return await asyncio.to_thread(self.reader.tools, tools, unreadable), cut
        if kind == "prompts":
            prompts, cut = await self._pages(ClientSession.list_prompts, "prompts")
            return self.reader.prompts(prompts), cut
        plain, cut = await self._pages(ClientSession.list_resources, "resources")
        try:
            templates, more = await self._pages(ClientSession.list_resource_templates, "resource_templates")
        except Refused:  # many servers with resources know no templates
            templates, more = [], False
        return self.reader.resources(plain, templates), cut or more

    async def _pages(self, ask: Callable[..., Awaitable[Any]], field: str) -> tuple[list[Any], bool]:
        items: list[Any] = []
        cursor: str | None = None
        room, is_full = self._bounds.list_bytes, False
        for _ in range(self._bounds.pages):
            params = None if cursor is None else types.PaginatedRequestParams(cursor=cursor)
            page = await self._request(partial(ask, params=params))
            new, room = await asyncio.to_thread(_fitting, getattr(page, field), room)
            items += new
            cursor = page.next_cursor
            is_full = room < 0 or len(items) > self._bounds.items
            if cursor is None or is_full:
                break
        return items[: self._bounds.items], cursor is not None or is_full

    async def call(self, tool: str, arguments: Mapping[str, Any], listener: Listener) -> types.CallToolResult:
        """Call a tool."""

        async def work(session: ClientSession, answers: Any, state: str | None) -> Any:
            params = types.CallToolRequestParams(
                name=tool, arguments=dict(arguments), input_responses=answers, request_state=state
            )
            request = types.CallToolRequest(params=params)
            return await session.send_request(request, _CALL_RESULT, progress_callback=listener.on_progress)

        self._listeners.add(listener)
        try:
            result: types.CallToolResult = await self._rounds(work)
            return result
        finally:
            self._listeners.discard(listener)
            listener.close()

    async def read(self, uri: str) -> types.ReadResourceResult:
        """Read a resource."""

        async def work(session: ClientSession, answers: Any, state: str | None) -> Any:
            params = types.ReadResourceRequestParams(uri=uri, input_responses=answers, request_state=state)
            return await session.send_request(types.ReadResourceRequest(params=params), _READ_RESULT)

        result: types.ReadResourceResult = await self._rounds(work)
        return result

    async def prompt(self, name: str, arguments: Mapping[str, str]) -> types.GetPromptResult:
        """Fill in a prompt."""

        async def work(session: ClientSession, answers: Any, state: str | None) -> Any:
            params = types.GetPromptRequestParams(
                name=name, arguments=dict(arguments), input_responses=answers, request_state=state
            )
            return await session.send_request(types.GetPromptRequest(params=params), _PROMPT_RESULT)

        result: types.GetPromptResult = await self._rounds(work)
        return result

    async def _rounds(self, work: Callable[..., Awaitable[Any]]) -> Any:
        """A request of 2026 may be answered by a question first; the one that we answer is for roots."""
        answers: dict[str, Any] | None = None
        state: str | None = None
        for _ in range(_INPUT_ROUNDS):
            result = await self._request(partial(work, answers=answers, state=state))
            if not isinstance(result, types.InputRequiredResult):
                return result
            asked = result.input_requests or {}
            if any(not isinstance(one, types.ListRootsRequest) for one in asked.values()):
                raise Fault("it asks for what was not offered (sampling or elicitation)")
            answers = {key: types.ListRootsResult(roots=[]) for key in asked} or None
            state = result.request_state
        raise Fault("it goes on asking instead of answering")

    async def _request(self, work: Callable[[ClientSession], Awaitable[T]]) -> T:
        """Run a request; raises Lost, Refused or Fault."""
        session = self._current()
        sent = sessions.Sent(done=not self.is_remote)
        token = sessions.SENT.set(sent)
        try:
            return await work(session)
        except MCPError as error:
            raise await self._told(error, sent) from None
        except (ValidationError, RecursionError) as error:
            told = what_is_wrong(error) if isinstance(error, ValidationError) else type(error).__name__
            raise Fault(f"its answer is no MCP: {told[:300]}") from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise Lost(await self._why(), sent=sent.done) from None
        finally:
            sessions.SENT.reset(token)
            self.used_at = time.monotonic()

    async def _told(self, error: MCPError, sent: sessions.Sent) -> Exception:
        failure = Failure.of(error)
        if failure is not None:
            if failure.kind in (Kind.NOT_SENT, Kind.GONE, Kind.LOST):
                return Lost(Ended(failure.text), sent=failure.kind is Kind.LOST)
            return Fault(failure.text, reason=failure.reason)
        if error.code == types.PARSE_ERROR or error.message.startswith(_LIBRARYS_FAULTS):
            return Fault(f"its answer is no MCP: {self.reader.label(error.message, 200)}")
        # The code alone tells nothing: servers use the same for their own errors.
        if error.code == types.CONNECTION_CLOSED and (
            error.message == _CLOSED or error.message.startswith(_LIBRARYS_LOSSES)
        ):
            return Lost(await self._why(error.message), sent=sent.done)
        return Refused(error.code, self.reader.label(error.message, 2000))

    async def _why(self, otherwise: str = "the connection was lost") -> Ended:
        if isinstance(self._server.transport, Stdio) or otherwise == _CLOSED:  # its end is about to be seen
            try:
                async with asyncio.timeout(self._bounds.exit_grace.total_seconds() * 2):
                    await self._fate.settled.wait()
            except TimeoutError:
                pass
        return self._fate.cause or Ended(otherwise)

    async def _on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        for listener in list(self._listeners):
            listener.on_log(params.level, params.logger, params.data)

    async def _on_message(self, message: Any) -> None:
        match message:
            case types.ToolListChangedNotification():
                self.changes["tools"] += 1
            case types.ResourceListChangedNotification():
                self.changes["resources"] += 1
            case types.PromptListChangedNotification():
                self.changes["prompts"] += 1
            case _:
                pass


def _fitting(items: Sequence[Any], room: int) -> tuple[list[Any], int]:
    """Those for which there is room, as JSON, and what is left of it: less than nothing when some were left out."""
    fitting = []
    for item in items:
        room -= len(item.model_dump_json())
        if room < 0:
            break
        fitting.append(item)
    return fitting, room


async def _ping(session: ClientSession) -> Any:
    if session.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return await session.send_discover(session.protocol_version or "")
    return await session.send_ping()
