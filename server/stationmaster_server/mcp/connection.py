"""One connection to one server. A task of its own enters and leaves it; calls come from any task. Slow to import."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import mcp_types as types
from mcp.client.session import ClientSession
from mcp.client.subscriptions import SubscriptionLost, listen
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from stationmaster_server.mcp import session as sessions
from stationmaster_server.mcp.asking import Asking
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Ended, cause_of, leaves
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.mcp.model import Http, McpServer, Stdio
from stationmaster_server.mcp.reading import Reader
from stationmaster_server.mcp.transport_http import Failure, HttpClients, Kind, http
from stationmaster_server.mcp.transport_stdio import stdio

_CLOSE_PATIENCE = timedelta(seconds=20)


class Connection(Asking):
    """Made with `start`; `ready` waits for its handshake; ended by `close`, or by the server."""

    def __init__(
        self, server: McpServer, reader: Reader, clients: HttpClients, built_in: MCPServer | None, bounds: Bounds
    ) -> None:
        super().__init__(server, reader, bounds)
        self.connect_latency = timedelta()
        self._clients = clients
        self._built_in = built_in
        self._ready = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None

    def start(self, over: Callable[[Connection], None]) -> None:
        """Begin to connect; `over` is called when nothing of it is left."""
        self._owner = asyncio.create_task(self._own(), name=f"mcp:{self._server.server_id}")
        self._owner.add_done_callback(lambda _: over(self))

    async def ready(self, give_up: float) -> None:
        """Until the handshake is done; raises Ended when it fails or is not done by then (`time.monotonic()`)."""
        limit = self._server.connect_timeout.total_seconds()
        waits = [asyncio.create_task(event.wait()) for event in (self._ready, self._fate.settled)]
        try:
            left = max(0.0, give_up - time.monotonic())
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._fate.cause is None and not self._ready.is_set():
            self._abort(Ended(self.with_complaint(f"it did not answer within {limit:g} s")))
        if self._fate.cause is not None:
            raise self._fate.cause

    async def close(self) -> None:
        """End it; returns when nothing of it is left, or after a bounded time."""
        self._stop.set()
        if self._owner is None:
            return
        if not self._ready.is_set():
            self._abort(Ended("the connection was closed"))
        await asyncio.wait([self._owner], timeout=_CLOSE_PATIENCE.total_seconds())
        self._owner.cancel()

    def _abort(self, cause: Ended) -> None:
        # One that has a fate is ending by itself.
        if self._owner is not None and self._fate.cause is None:
            self._owner.cancel()
        self._fate.end(cause)
        self._stop.set()

    async def _own(self) -> None:
        began = time.monotonic()
        try:
            async with self._opened() as session, anyio.create_task_group() as tasks:
                self._session = session
                self.connect_latency = timedelta(seconds=time.monotonic() - began)
                if session.protocol_version in MODERN_PROTOCOL_VERSIONS:
                    tasks.start_soon(self._follow_changes, session)
                else:
                    await self._ask_for_logs(session)
                self._ready.set()
                await self._stop.wait()
                tasks.cancel_scope.cancel()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever ends it is its fate, told to callers
            self._fate.end(self._cause(error))
        finally:
            self._fate.end(Ended("the connection was closed"))

    def _cause(self, error: BaseException) -> Ended:
        failure = next((Failure.of(one) for one in _mcp_errors(error)), None)
        if failure is not None:
            is_fault = failure.kind in (Kind.FAULT, Kind.STATUS, Kind.REFUSED)
            return Ended(failure.text, is_fault=is_fault, reason=failure.reason)
        for one in _mcp_errors(error):
            return Ended(f"it refused the connection: {self.reader.label(one.message, 500)}", is_fault=True)
        return cause_of(error)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[ClientSession]:
        handlers = sessions.Handlers(self._on_log, self._on_message)
        if self._built_in is not None:
            async with sessions.in_process(self._built_in, handlers) as session:
                yield session
            return
        async with (
            self._transport() as (incoming, outgoing),
            sessions.over_streams(incoming, outgoing, handlers, self._watch, self._fate, self._bounds) as session,
        ):
            yield session

    def _transport(self) -> AbstractAsyncContextManager[tuple[Any, Any]]:
        transport = self._server.transport
        if isinstance(transport, Stdio):
            command = (transport.command, *transport.arguments)
            return stdio(command, transport.environment, Mask.of(self._server), self._fate, self._bounds)
        if isinstance(transport, Http):
            return http(transport, self._clients, self._server.connect_timeout, self._fate, self._bounds)
        raise Ended(f"there is no built-in server {transport.name!r}", is_fault=True)

    async def _follow_changes(self, session: ClientSession) -> None:
        """Servers of 2026 tell of changes only to who subscribes; `_on_message` hears of them too."""
        try:
            async with listen(
                session, tools_list_changed=True, prompts_list_changed=True, resources_list_changed=True
            ) as changes:
                async for _ in changes:
                    pass
        except (MCPError, SubscriptionLost, RuntimeError, TimeoutError, ValidationError):
            pass  # it does not tell

    async def _ask_for_logs(self, session: ClientSession) -> None:
        if session.server_capabilities is None or session.server_capabilities.logging is None:
            return
        try:
            params = types.SetLevelRequestParams(level="info")
            await session.send_request(types.SetLevelRequest(params=params), types.EmptyResult)
        except (MCPError, ValidationError):
            pass  # then it tells what it likes


def _mcp_errors(error: BaseException) -> list[MCPError]:
    return [one for one in leaves(error) if isinstance(one, MCPError)]
