"""Writes what belongs to no change: one writer for each process, which flushes what queued during its last commit."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from stationmaster_server.audit import store
from stationmaster_server.audit.rows import Row
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Reason, Unavailable

logger = logging.getLogger(__name__)

_LARGEST_FLUSH = 1000


class RefusalWriter:
    """Whoever writes waits until its row is committed; many who wait share one statement and one commit."""

    def __init__(self, database: Database, committed: Callable[[], None]) -> None:
        self._database = database
        self._committed = committed
        self._pending: list[tuple[Row, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._closing = False

    async def write(self, row: Row) -> None:
        """Commit a row; Unavailable when the database is away, and then nothing may be answered but that."""
        if self._closing:
            raise Unavailable(Reason.SERVER_STOPPING, "the server is stopping")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((row, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="audit writer")
        await future

    async def close(self) -> None:
        """Write what waits; refuse what comes later."""
        self._closing = True
        if self._flushing is not None:
            await self._flushing

    async def _flush(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending[:_LARGEST_FLUSH], self._pending[_LARGEST_FLUSH:]
                await self._write(batch)
        finally:
            self._flushing = None

    async def _write(self, batch: list[tuple[Row, asyncio.Future[None]]]) -> None:
        # Gathered, so that whatever goes wrong reaches those who wait for it.
        (error,) = await asyncio.gather(self._commit([row for row, _ in batch]), return_exceptions=True)
        for _, future in batch:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        if error is None:
            self._committed()
        else:
            logger.error("%d audit events could not be written", len(batch), exc_info=error)

    async def _commit(self, rows: list[Row]) -> None:
        details = [json.dumps(row.details, ensure_ascii=False, separators=(",", ":")) for row in rows]
        async with self._database.system(autocommit=True) as tx:
            await store.write_many(tx, rows, details)
