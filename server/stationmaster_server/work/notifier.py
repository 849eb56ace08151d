"""Wakes other servers: one NOTIFY for whatever was submitted, or changed, while the last one was in flight."""

from __future__ import annotations

import asyncio
import logging

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import StationmasterError

logger = logging.getLogger(__name__)

CHANNEL = "stationmaster_work"


class Notifier:
    """Never inside a business transaction: notifications serialise commits. A lost one is made up for by polling."""

    def __init__(self, database: Database, channel: str = CHANNEL) -> None:
        """`channel` is an identifier."""
        self._database = database
        self._channel = channel
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    def poke(self) -> None:
        """Notify soon."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send(), name=f"notifier of {self._channel}")

    async def close(self) -> None:
        """Let the last notification out."""
        if self._task is not None:
            await self._task

    async def _send(self) -> None:
        while self._wanted:
            self._wanted = False
            try:
                async with self._database.system(autocommit=True) as tx:
                    await tx.execute(f"NOTIFY {self._channel}")
            except StationmasterError as error:
                logger.warning("other servers were not told on %s: %s", self._channel, error)
