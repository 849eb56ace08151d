"""The group-commit floor: one connection, one INSERT from arrays, no timer: it flushes what queued meanwhile."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg

from benchmarks.load.closed import closed_loop

_SCHEMA = """
CREATE TABLE IF NOT EXISTS floor_events (
    stream_id uuid, sequence bigint, kind text, body json, created_at timestamptz DEFAULT now(),
    PRIMARY KEY (stream_id, sequence))
"""
_INSERT = """
INSERT INTO floor_events (stream_id, sequence, kind, body)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::json[])
"""
Row = tuple[uuid.UUID, int, str, str]


class GroupCommit:
    """Commits rows in groups; each writer learns when its row is durable."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection
        self._rows: list[Row] = []
        self._futures: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()

    def write(self, row: Row) -> asyncio.Future[None]:
        """Queue a row."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows.append(row)
        self._futures.append(future)
        self._wake.set()
        return future

    async def run(self) -> None:
        """Flush for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            rows, self._rows = self._rows, []
            futures, self._futures = self._futures, []
            await self._connection.execute(_INSERT, *map(list, zip(*rows, strict=True)))
            for future in futures:
                future.set_result(None)


async def group_commit(*, url: str, streams: int, seconds: float, body: str) -> dict[str, float]:
    """So many streams that each write event after event, each waiting until its event is committed."""
    connection = await asyncpg.connect(url)
    await connection.execute(_SCHEMA)
    writer = GroupCommit(connection)
    flushing = asyncio.create_task(writer.run())
    ids = [uuid.uuid4() for _ in range(streams)]
    sequences = [0] * streams

    async def write(stream: int) -> None:
        sequences[stream] += 1
        await writer.write((ids[stream], sequences[stream], "text_delta", body))

    try:
        return await closed_loop(write, callers=streams, seconds=seconds)
    finally:
        flushing.cancel()
        await connection.close()
