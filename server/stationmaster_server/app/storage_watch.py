"""Looks now and then whether the bucket answers, and tells the health board."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from stationmaster_server.errors import Unavailable
from stationmaster_server.rpc.health import HealthBoard

STORAGE = "object storage"
"""What StorageService needs, on the board."""
_ANSWER_LIMIT = 10.0
_MOST_MISSED = 2
"""Looks in a row in which the bucket does not do, until it counts as away: one request may be lost."""
_log = structlog.get_logger(__name__)


class StorageWatch:
    """While the bucket is away StorageService is NOT_SERVING; everything else goes on."""

    def __init__(self, ask: Callable[[], Awaitable[object]], board: HealthBoard) -> None:
        """`ask` raises Unavailable when the bucket does not do."""
        self._ask = ask
        self._board = board
        self._missed = 0

    async def look(self) -> None:
        """Look now."""
        try:
            async with asyncio.timeout(_ANSWER_LIMIT):
                await self._ask()
        except Unavailable as error:
            self._lost(error.message)
        except TimeoutError:
            limit = f"{_ANSWER_LIMIT:g} s"
            self._lost(
                f"the object storage of this server did not answer within {limit}: see whether it can be reached"
            )
        else:
            self._missed = 0
            if self._board.regain(STORAGE):
                _log.info("the object storage is back")

    def forget(self) -> None:
        """Nobody looks any more: what was found need not be so now."""
        self._missed = 0
        if self._board.regain(STORAGE):
            _log.warning("nobody looks any more whether the object storage is back; StorageService is served")

    def _lost(self, why: str) -> None:
        self._missed += 1
        if self._missed >= _MOST_MISSED and self._board.lose(STORAGE, why):
            _log.error("the object storage is away; StorageService is NOT_SERVING until it is back", reason=why)
