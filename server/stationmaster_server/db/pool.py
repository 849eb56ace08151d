"""A pool of connections that hands one over without a round trip and, where it can, one already set to the tenant."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from weakref import WeakSet

from stationmaster_server.db.connection import Connection
from stationmaster_server.db.errors import unavailable
from stationmaster_server.db.model import Tenant


class Pool:
    """At most `size` connections, opened when needed. Nobody waits for one longer than `wait_limit`.

    Whenever somebody waits, a connection is out or being opened; so each return and each failure to open wakes one.
    """

    def __init__(self, open_connection: Callable[[], Awaitable[Connection]], size: int, wait_limit: timedelta) -> None:
        self._open_connection = open_connection
        self._capacity = size
        self._wait_limit = wait_limit.total_seconds()
        self._open = 0  # idle, handed out, or being opened
        self._idle: list[Connection] = []  # the most recently used last
        self._all: WeakSet[Connection] = WeakSet()
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._openers: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether it has a connection that is whole, idle or handed out."""
        return any(not connection.is_closed() for connection in self._all)

    def take(self, tenant: Tenant | None = None) -> Connection | None:
        """An idle connection, preferably one set to `tenant`; None: await `wait()`."""
        idle = self._idle
        while idle:
            connection = idle.pop(_choose(idle, tenant))
            if not connection.is_closed():
                return connection
            self._open -= 1
        return None

    async def wait(self) -> Connection:
        """The next connection that is given back or opened."""
        if self._closed:
            raise unavailable("the server is stopping")
        future: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._open < self._capacity:
            self._start_opening()
        try:
            async with asyncio.timeout(self._wait_limit):
                return await future
        except (TimeoutError, asyncio.CancelledError) as error:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give(future.result())  # it came in the same instant
            if isinstance(error, TimeoutError):
                raise unavailable("every database connection is busy; try again shortly") from None
            raise

    def give(self, connection: Connection) -> None:
        """Take a connection back; a broken one is forgotten."""
        if self._closed:
            connection.terminate()
        if connection.is_closed():
            self._open -= 1
            if any(not future.done() for future in self._waiting):
                self._start_opening()
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(connection)
                return
        self._idle.append(connection)

    async def close(self) -> None:
        """Close what is idle and refuse whoever waits; a connection that is out is closed when it comes back."""
        idle = self._shut()
        await asyncio.gather(*(connection.close(timeout=2) for connection in idle), return_exceptions=True)

    def abandon(self) -> None:
        """Break off every connection, those in use too, and refuse whoever waits."""
        for connection in list(self._all):
            connection.terminate()
        self._shut()

    def _shut(self) -> list[Connection]:
        """Open and hand out nothing more; what was idle."""
        self._closed = True
        for opener in list(self._openers):
            opener.cancel()
        self._refuse(list(self._waiting), unavailable("the server is stopping"))
        idle, self._idle = self._idle, []
        self._open -= len(idle)
        return idle

    def _start_opening(self) -> None:
        self._open += 1
        opener = asyncio.create_task(self._open_one())
        self._openers.add(opener)
        opener.add_done_callback(self._openers.discard)

    async def _open_one(self) -> None:
        try:
            connection = await self._open_connection()
        except BaseException as error:
            self._open -= 1
            if isinstance(error, asyncio.CancelledError):
                raise
            # Were connections still out, their return would serve the others; with none, nothing would.
            self._refuse(list(self._waiting)[: 1 if self._open else None], error)
        else:
            self._all.add(connection)
            self.give(connection)

    def _refuse(self, futures: list[asyncio.Future[Connection]], error: BaseException) -> None:
        for future in futures:
            self._waiting.remove(future)
            if not future.done():
                future.set_exception(error)


def _choose(idle: list[Connection], tenant: Tenant | None) -> int:
    """The newest that is set to the tenant; else the one idle longest, so that tenants in use keep theirs."""
    if tenant is None:
        return -1
    for index in range(len(idle) - 1, -1, -1):
        if idle[index].tenant == tenant:
            return index
    return 0
