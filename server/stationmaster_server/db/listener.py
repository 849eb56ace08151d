"""LISTEN on a connection of its own, which comes back by itself after an outage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import asyncpg

from stationmaster_server.db.connection import Connection
from stationmaster_server.db.engine import Database
from stationmaster_server.db.errors import NotMigrated
from stationmaster_server.errors import StationmasterError

logger = logging.getLogger(__name__)

Callback = Callable[[str | None], None]

_LOOK_EVERY = 10.0  # seconds between looks whether a silent connection still answers
_ANSWER_LIMIT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts to come back


class Listener:
    """Calls back for each notification with its payload, and once with None when some may have been missed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._callbacks: dict[str, list[Callback]] = {}
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    def add(self, channel: str, callback: Callback) -> None:
        """Call `callback` for notifications on `channel` (an identifier); to be done before `start`."""
        if self._task is not None:
            raise RuntimeError("add every channel before the listener starts")
        self._callbacks.setdefault(channel, []).append(callback)

    async def start(self) -> None:
        """Listen from now on; Unavailable when the database is away."""
        self._connection = await self._listen()
        self._task = asyncio.create_task(self._keep_listening(self._connection), name="listener")

    async def stop(self) -> None:
        """Stop listening and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            self._connection.terminate()

    async def _listen(self) -> Connection:
        connection = await self._database.open_dedicated()
        try:
            self._lost.clear()
            connection.add_termination_listener(lambda _: self._lost.set())
            for channel in self._callbacks:
                await connection.add_listener(channel, self._received)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _keep_listening(self, connection: Connection) -> None:
        while True:
            await self._wait_until_lost(connection)
            connection.terminate()
            logger.warning("the connection that listens for notifications was lost")
            self._connection = connection = await self._come_back()
            for channel in self._callbacks:
                self._call(channel, None)

    async def _wait_until_lost(self, connection: Connection) -> None:
        """Return when the connection is closed, or is silent when asked (a cut cable closes nothing)."""
        while not connection.is_closed():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), _LOOK_EVERY)
                return
            try:
                await connection.fetchval("SELECT 1", timeout=_ANSWER_LIMIT)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return

    async def _come_back(self) -> Connection:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._listen()
            except (OSError, StationmasterError, NotMigrated, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _received(self, _connection: object, _process: int, channel: str, payload: object) -> None:
        self._call(channel, str(payload))

    def _call(self, channel: str, payload: str | None) -> None:
        for callback in self._callbacks[channel]:
            try:
                callback(payload)
            except Exception:
                logger.exception("a callback of the channel %s failed", channel)
