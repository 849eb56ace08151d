"""Connections by who uses them: one for each tenant, server and etag, or one of its own for an MCP session."""

from __future__ import annotations

import asyncio
import importlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from stationmaster_server.config.mcp import McpSettings
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import QuotaViolation, Reason, ResourceExhausted, Unavailable
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.commands import refuse_command
from stationmaster_server.mcp.faults import Ended, Lost
from stationmaster_server.mcp.model import BuiltIn, Stdio
from stationmaster_server.mcp.resolving import Resolve
from stationmaster_server.mcp.slots import Breakers, Counters, Key, Slot, Target
from stationmaster_server.mcp.telling import Teller

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from stationmaster_server.mcp.connection import Connection
    from stationmaster_server.mcp.transport_http import HttpClients

_ATTEMPTS = 3
_FIRST_DELAY_SECONDS = 0.1
_LONGEST_WITH_CREDENTIALS_SECONDS = 300.0


class Pool:
    """Every connection of this process."""

    def __init__(
        self,
        settings: McpSettings,
        built_in: Mapping[str, Callable[[Tenant], MCPServer]],
        http: HttpClients,
        bounds: Bounds,
        resolve: Resolve,
    ) -> None:
        self.counters = Counters()
        self._settings = settings
        self._built_in = built_in
        self._http = http
        self._bounds = bounds
        self._resolve = resolve
        self._slots: dict[Key, Slot] = {}
        self._all: dict[Connection, Slot] = {}
        self._breakers = Breakers()
        self._closers: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def open_now(self) -> int:
        """How many connections are open."""
        return sum(not connection.is_over for connection in self._all)

    @property
    def sessions(self) -> tuple[UUID, ...]:
        """The MCP sessions that have a place here."""
        return tuple(slot.target.session_id for slot in self._slots.values() if slot.target.session_id is not None)

    @asynccontextmanager
    async def use(self, target: Target, *, force: bool = False) -> AsyncIterator[tuple[Slot, Connection]]:
        """A live connection, kept open meanwhile. `force`: connect although it failed often of late.

        Raises Unavailable, FailedPrecondition or ResourceExhausted.
        """
        slot = self._slot(target)
        slot.users += 1
        try:
            connection = await self._live(slot, force=force)
            connection.users += 1
            try:
                yield slot, connection
            finally:
                connection.users -= 1
                connection.used_at = time.monotonic()
                if (slot.is_dropped or slot.connection is not connection) and not connection.users:
                    self._close_soon(connection)
        finally:
            slot.users -= 1

    def with_complaint(self, target: Target, why: str) -> str:
        """`why`, and what the server said while it was connected to."""
        slot = self._slot(target)
        connecting = (made for made, place in self._all.items() if place is slot and not made.alive)
        return next((made.with_complaint(why) for made in connecting), why)

    def retire(self, slot: Slot, connection: Connection) -> None:
        """Nobody else gets this connection; it ends when its last user is done."""
        if slot.connection is connection:
            slot.connection = None
        if not connection.users:
            self._close_soon(connection)

    async def close_session(self, session_id: UUID) -> None:
        """End the connection of an MCP session."""
        await self._drop(lambda slot: slot.target.session_id == session_id, now=True)

    async def forget(self, uid: UUID) -> None:
        """A server changed: its connections end when idle."""
        await self._drop(lambda slot: slot.target.server.uid == uid, now=False)

    async def evict_idle(self) -> int:
        """Close what nobody used for a while, but those of MCP sessions; how many."""
        limit = time.monotonic() - self._settings.idle_timeout.total_seconds()
        old = [slot for slot in self._idle() if slot.connection and slot.connection.used_at <= limit]
        await asyncio.gather(*(self._evict(slot) for slot in old))
        for key, slot in list(self._slots.items()):
            if not slot.users and slot.connecting is None and (slot.connection is None or slot.connection.is_over):
                del self._slots[key]
        return len(old)

    async def close(self) -> None:
        """End all, whoever uses them."""
        self._is_closed = True
        connecting = [slot.connecting for slot in self._slots.values() if slot.connecting is not None]
        for task in connecting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)
        await asyncio.gather(*(connection.close() for connection in list(self._all)))
        await asyncio.gather(*self._closers)
        self._slots.clear()

    async def _live(self, slot: Slot, *, force: bool) -> Connection:
        connection = slot.connection
        if connection is not None and _is_stale(slot, connection):
            self.retire(slot, connection)
            connection = None
        if connection is not None and connection.alive and await self._answers(slot, connection):
            return connection
        if slot.connecting is None:
            slot.connecting = asyncio.create_task(self._connect(slot, force=force))
            slot.connecting.add_done_callback(lambda task: self._connected(slot, task))
        connecting = slot.connecting
        try:
            return await asyncio.shield(connecting)  # not ended with this caller: others wait for it too
        except asyncio.CancelledError:
            if connecting.cancelled():  # by `close`
                raise _stopping() from None
            raise

    async def _answers(self, slot: Slot, connection: Connection) -> bool:
        is_silent = connection.silent_for > self._settings.ping_interval and not connection.users
        if not connection.is_remote or not (is_silent or connection.suspicious):
            return True
        if slot.pinging is None:
            slot.pinging = asyncio.create_task(self._ping(slot, connection))
        return await asyncio.shield(slot.pinging)

    async def _ping(self, slot: Slot, connection: Connection) -> bool:
        try:
            await connection.ping()
        except Lost:
            self.retire(slot, connection)
            return False
        finally:
            slot.pinging = None
        return True

    async def _connect(self, slot: Slot, *, force: bool) -> Connection:
        server = slot.target.server
        if isinstance(server.transport, Stdio):
            refuse_command(server.transport.command, self._settings.stdio_commands)
        # The library takes half a second to import: not at the start of the server, and not in its loop.
        module = await asyncio.to_thread(importlib.import_module, "stationmaster_server.mcp.connecting")
        self._make_room(slot.target)
        try:
            return await slot.breaker.call(lambda: self._open(slot, module.make), force=force)
        except Ended as ended:
            raise Teller(server).ended(ended) from None

    def _connected(self, slot: Slot, task: asyncio.Task[Connection]) -> None:
        slot.connecting = None
        if task.cancelled() or task.exception() is not None:
            return
        slot.connection = task.result()
        if slot.is_dropped and not slot.users:
            self._close_soon(slot.connection)

    async def _open(self, slot: Slot, make: Callable[..., Connection]) -> Connection:
        give_up = time.monotonic() + slot.target.server.connect_timeout.total_seconds()
        target = replace(slot.target, server=await self._resolve(slot.target))
        for attempt in range(_ATTEMPTS):
            connection = make(target, self._built_in, self._http, self._bounds)
            self._all[connection] = slot
            connection.start(self._over)
            try:
                await connection.ready(give_up)
            except Ended as ended:
                self.counters.failed += 1
                pause = _FIRST_DELAY_SECONDS * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311
                if ended.is_fault or attempt + 1 == _ATTEMPTS or time.monotonic() + pause >= give_up:
                    raise
                await asyncio.sleep(pause)
            except asyncio.CancelledError:
                self._close_soon(connection)
                raise
            else:
                self.counters.opened += 1
                return connection
        raise AssertionError("unreachable")

    def _over(self, connection: Connection) -> None:
        self._all.pop(connection, None)

    def _make_room(self, target: Target) -> None:
        """Raises ResourceExhausted when there are too many connections and none of them is idle."""
        if self._is_closed:
            raise _stopping()
        user = target.tenant.user_id
        open_now = [slot for connection, slot in self._all.items() if not connection.is_over]
        of_user = [slot for slot in open_now if slot.target.tenant.user_id == user]
        for slots, limit, whose in (
            (of_user, self._settings.max_connections_per_user, f"users/{user}"),
            (open_now, self._settings.max_connections, "server"),
        ):
            if len(slots) < limit:
                continue
            idle = [slot for slot in self._idle() if slot in slots]
            if not idle:
                raise ResourceExhausted(
                    Reason.SERVER_OVERLOADED,
                    f"{limit} connections to MCP servers are open, which is the limit: close MCP sessions or wait",
                    QuotaViolation(whose, f"more than {limit} connections to MCP servers"),
                    retry_after=timedelta(seconds=5),
                )
            oldest = min(idle, key=lambda slot: slot.connection.used_at if slot.connection else 0.0)
            self.counters.evicted += 1
            if oldest.connection is not None:
                self.retire(oldest, oldest.connection)

    def _idle(self) -> list[Slot]:
        return [
            slot
            for slot in self._slots.values()
            if slot.connection is not None
            and not slot.connection.is_over
            and not slot.connection.users
            and slot.target.session_id is None
        ]

    async def _evict(self, slot: Slot) -> None:
        connection, slot.connection = slot.connection, None
        if connection is not None:
            self.counters.evicted += 1
            await connection.close()

    async def _drop(self, which: Callable[[Slot], bool], *, now: bool) -> None:
        ending = []
        for key, slot in list(self._slots.items()):
            if not which(slot):
                continue
            del self._slots[key]
            slot.is_dropped = True
            if slot.connection is not None and (now or not slot.users):
                ending.append(slot.connection.close())
        await asyncio.gather(*ending)

    def _close_soon(self, connection: Connection) -> None:
        closing = asyncio.create_task(connection.close())
        self._closers.add(closing)
        closing.add_done_callback(self._closers.discard)

    def _slot(self, target: Target) -> Slot:
        server = target.server
        key = (target.tenant, server.level, server.server_id, server.uid, server.etag, target.session_id)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot(target, self._breakers.of(target))
        return slot


def _is_stale(slot: Slot, connection: Connection) -> bool:
    """Whether it was made with credentials so long ago that they may have changed since; sessions keep theirs."""
    transport = slot.target.server.transport
    if isinstance(transport, BuiltIn) or not transport.credentials or slot.target.session_id is not None:
        return False
    return time.monotonic() - connection.made_at > _LONGEST_WITH_CREDENTIALS_SECONDS


def _stopping() -> Unavailable:
    return Unavailable(Reason.SERVER_STOPPING, "the server is stopping")
