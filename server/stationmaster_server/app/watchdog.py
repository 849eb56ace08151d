"""Looks every second whether the database answers, and tells the health board."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.db.probe import Probe
from stationmaster_server.rpc.health import HealthBoard

DATABASE = "database"
_EVERY = 1.0
_ANSWER_LIMIT = 2.0
_MOST_SILENT = 2
"""Pings in a row without an answer until the database counts as away: a busy machine may swallow one."""
AWAY_WITHIN = timedelta(seconds=_MOST_SILENT * (_EVERY + _ANSWER_LIMIT))
"""A database that falls silent is told of within this; one that refuses or is gone, with the next look."""
_log = structlog.get_logger(__name__)


class Watchdog:
    """`async with` it. What needs the database is NOT_SERVING while it is away, and comes back with it.

    A server whose connections are all busy goes on serving: its calls wait, and are refused one by one.
    """

    def __init__(self, database: Database, board: HealthBoard) -> None:
        self._database = database
        self._probe = Probe(database)
        self._board = board
        self._task: asyncio.Task[None] | None = None
        self._silent = 0
        self._impatient = False
        self.answer_seconds = 0.0
        """How long the database took to answer last."""

    async def __aenter__(self) -> Watchdog:
        self._task = asyncio.create_task(self._watch(), name="watchdog")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._probe.close()

    def lose_patience(self) -> None:
        """The server ends: give up a database that is silent, or falls so, as statements are waited for long."""
        self._impatient = True

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(_EVERY)

    async def _look(self) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_ANSWER_LIMIT):
                await self._probe.ask()
        except Exception as error:  # noqa: BLE001 - whatever it is: the database does not answer
            self._silent += 1
            if isinstance(error, TimeoutError) and self._silent < _MOST_SILENT:
                return
            reason = str(error.__cause__ or error) or f"no answer within {_ANSWER_LIMIT:g} s"
            if self._board.lose(DATABASE, reason):
                _log.error("the database is away; answering NOT_SERVING until it is back", reason=reason)
            if self._impatient and isinstance(error, TimeoutError):
                self._impatient = False
                _log.warning("the server ends without the database, which is silent: leases take care of what is left")
                self._database.abandon()
        else:
            self._silent = 0
            self.answer_seconds = time.perf_counter() - began
            if self._board.regain(DATABASE):
                _log.info("the database is back")
