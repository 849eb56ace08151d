"""A session of the library's over any transport: watched, and lenient with what a server lists."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from typing import Any

import mcp_types as types
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext, ClientSession
from mcp.server.mcpserver import MCPServer
from mcp.shared.dispatcher import CallOptions, Dispatcher, OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp_types import methods
from pydantic import ValidationError

from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.counting import bound
from stationmaster_server.mcp.faults import Ended, Fate, what_is_wrong
from stationmaster_server.mcp.rate import Rate

# The library tells of every message it cannot use, with a traceback: a server could fill our log.
for _name in ("client", "mcp.client", "mcp.shared"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_LISTS = {
    "tools/list": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    "prompts/list": "prompts",
}
_LATEST_HANDSHAKE = "2025-11-25"


@dataclass(slots=True)
class Sent:
    """Whether the request of this call was given to the transport."""

    done: bool = False


SENT: ContextVar[Sent | None] = ContextVar("sent", default=None)


@dataclass(slots=True)
class Watch:
    """What is seen of a connection's traffic."""

    heard_at: float = field(default_factory=time.monotonic)
    unreadable: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Entries of lists that are no MCP, by the list's method: name and what is wrong."""


@dataclass(slots=True)
class Handlers:
    """What a session calls back; see the library's ClientSession."""

    on_log: Any
    on_message: Any


@asynccontextmanager
async def over_streams(
    incoming: Any, outgoing: Any, handlers: Handlers, watch: Watch, fate: Fate, bounds: Bounds
) -> AsyncIterator[ClientSession]:
    """A session over a transport's streams, after its handshake: the one of 2026, else the older one."""
    inner: JSONRPCDispatcher = JSONRPCDispatcher(_Reading(incoming, watch, fate, bounds), _Writing(outgoing))
    lenient = _Lenient(inner, watch)
    session = ClientSession(
        dispatcher=lenient,
        list_roots_callback=_no_roots,
        logging_callback=handlers.on_log,
        message_handler=handlers.on_message,
        client_info=_ourselves(),
        log_level="info",
    )
    lenient.session = session
    async with session:
        try:
            await session.discover()
        except (MCPError, ValidationError, RuntimeError):
            await _initialize(session)
        yield session


async def _initialize(session: ClientSession) -> None:
    try:
        await session.initialize()
    except ValidationError as error:
        raise _no_handshake(what_is_wrong(error)) from None
    except RuntimeError as error:  # a version that the library does not know
        raise _no_handshake(str(error)) from None


def _no_handshake(why: str) -> Ended:
    return Ended(f"its handshake is no MCP: {why[:300]}", is_fault=True)


@asynccontextmanager
async def in_process(server: MCPServer, handlers: Handlers) -> AsyncIterator[ClientSession]:
    """A session with a server in this process."""
    client = Client(
        server,
        list_roots_callback=_no_roots,
        logging_callback=handlers.on_log,
        message_handler=handlers.on_message,
        client_info=_ourselves(),
        log_level="info",
        cache=None,
    )
    async with client:
        yield client.session


def _ourselves() -> types.Implementation:
    return types.Implementation(name="stationmaster", version=version_of("stationmaster"))


async def _no_roots(context: ClientRequestContext) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[])


class _Reading:
    """A read stream that is read at a bounded rate, and whose messages have a bounded number of values."""

    def __init__(self, inner: Any, watch: Watch, fate: Fate, bounds: Bounds) -> None:
        self._inner = inner
        self._watch = watch
        self._fate = fate
        self._bounds = bounds
        self._rate = Rate(bounds)

    @property
    def last_context(self) -> Any:
        """The context of who sent, where the transport keeps it."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """The next message."""
        message: SessionMessage | Exception = await self._inner.receive()
        return await self._taken(message)

    async def _taken(self, message: SessionMessage | Exception) -> SessionMessage | Exception:
        self._watch.heard_at = time.monotonic()
        try:
            await self._rate.take()
            if isinstance(message, SessionMessage):
                bound(message.message, self._bounds)
        except Ended as ended:
            raise self._fate.end(ended) from ended
        return message

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()

    def __aiter__(self) -> _Reading:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        message: SessionMessage | Exception = await self._inner.__anext__()
        return await self._taken(message)

    async def __aenter__(self) -> _Reading:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Writing:
    """A write stream that notes that a request was given to the transport."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def send(self, item: SessionMessage) -> None:
        """Send it."""
        sent = SENT.get()
        if sent is not None and isinstance(item.message, types.JSONRPCRequest):
            sent.done = True
        await self._inner.send(item)

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()

    async def __aenter__(self) -> _Writing:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Lenient(Dispatcher[TransportContext]):
    """Takes what is no MCP out of a list, so that one wrong tool does not hide the others."""

    def __init__(self, inner: JSONRPCDispatcher, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch
        self.session: ClientSession | None = None

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Send a request; its result."""
        result = await self._inner.send_raw_request(method, params, opts)
        if method in _LISTS:
            self._sift(method, _LISTS[method], result)
        return result

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification."""
        await self._inner.notify(method, params, opts)

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: Any = None,
    ) -> None:
        """Receive until the stream closes."""
        await self._inner.run(on_request, on_notify, on_notify_intercept, task_status=task_status)

    def _sift(self, method: str, key: str, result: dict[str, Any]) -> None:
        items = result.get(key)
        if not isinstance(items, list) or not self._problem(method, result):
            return
        kept: list[Any] = []
        for item in items:
            problem = self._problem(method, {**result, key: [item]})
            if problem:
                name = item.get("name") if isinstance(item, dict) else None
                self._watch.unreadable.setdefault(method, []).append((name if isinstance(name, str) else "", problem))
            else:
                kept.append(item)
        result[key] = kept

    def _problem(self, method: str, result: dict[str, Any]) -> str:
        version = (self.session.protocol_version if self.session else None) or _LATEST_HANDSHAKE
        try:
            methods.validate_server_result(method, version, result)
            _MODELS[method].model_validate(result, by_name=False)
        except ValidationError as error:
            return what_is_wrong(error, skip=2)
        except KeyError:
            return ""
        return ""


_MODELS: dict[str, type[types.Result]] = {
    "tools/list": types.ListToolsResult,
    "resources/list": types.ListResourcesResult,
    "resources/templates/list": types.ListResourceTemplatesResult,
    "prompts/list": types.ListPromptsResult,
}
