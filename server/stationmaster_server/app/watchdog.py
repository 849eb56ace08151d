"""Looks every second whether the database answers, and tells the health board."""

from __future__ import annotations

import asyncio
import time

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.rpc.health import HealthBoard

DATABASE = "database"
_EVERY = 1.0
_ANSWER_LIMIT = 2.0
_MOST_SILENT = 2
"""Pings in a row without an answer until the database counts as away: a busy machine may swallow one."""
_log = structlog.get_logger(__name__)


class Watchdog:
    """`async with` it. What needs the database is NOT_SERVING while it is away, and comes back with it."""

    def __init__(self, database: Database, board: HealthBoard) -> None:
        self._database = database
        self._board = board
        self._task: asyncio.Task[None] | None = None
        self._silent = 0
        self.answer_seconds = 0.0
        """How long the database took to answer last."""

    async def __aenter__(self) -> Watchdog:
        self._task = asyncio.create_task(self._watch(), name="watchdog")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(_EVERY)

    async def _look(self) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_ANSWER_LIMIT):
                await self._database.ping()
        except Exception as error:  # noqa: BLE001 - whatever it is: the database does not answer
            self._silent += 1
            if isinstance(error, TimeoutError) and self._silent < _MOST_SILENT:
                return
            reason = str(error.__cause__ or error) or f"no answer within {_ANSWER_LIMIT:g} s"
            if self._board.lose(DATABASE, reason):
                _log.error("the database is away; answering NOT_SERVING until it is back", reason=reason)
        else:
            self._silent = 0
            self.answer_seconds = time.perf_counter() - began
            if self._board.regain(DATABASE):
                _log.info("the database is back")
