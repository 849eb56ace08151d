"""The floor of a work queue: one table, FOR UPDATE SKIP LOCKED, ends in batches. No retries, no leases, no fairness."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from benchmarks.stats import percentile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS floor_work (id bigserial PRIMARY KEY, state int NOT NULL, payload text);
CREATE INDEX IF NOT EXISTS floor_work_due ON floor_work (id) WHERE state = 0;
TRUNCATE floor_work
"""
_INSERT = "INSERT INTO floor_work (state, payload) VALUES (0, '{}')"
_INSERT_MANY = "INSERT INTO floor_work (state, payload) SELECT 0, p FROM unnest($1::text[]) AS p"
_CLAIM = """
UPDATE floor_work SET state = 1 WHERE id IN (
    SELECT id FROM floor_work WHERE state = 0 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
) RETURNING id, payload
"""
_COMPLETE = "UPDATE floor_work SET state = 2 WHERE id = ANY($1::bigint[])"
_CLAIMED_AT_ONCE = 100


async def _connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    await connection.execute(_SCHEMA)
    return connection


async def floor_bulk(*, url: str, count: int) -> dict[str, float]:
    """Rows a second, all in one INSERT from an array."""
    connection = await _connect(url)
    await connection.execute(_INSERT_MANY, ["{}"] * 10)
    began = time.perf_counter()
    await connection.execute(_INSERT_MANY, ["{}"] * count)
    seconds = time.perf_counter() - began
    await connection.close()
    return {"rate": count / seconds}


async def floor_one_by_one(*, url: str, callers: int, count: int) -> dict[str, float]:
    """Rows a second, each in a transaction of its own, by callers with a connection each."""
    connections = [await _connect(url) for _ in range(callers)]
    left = iter(range(count))

    async def call(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        for _ in left:
            async with connection.transaction():
                await connection.execute(_INSERT)

    began = time.perf_counter()
    await asyncio.gather(*map(call, connections))
    seconds = time.perf_counter() - began
    for connection in connections:
        await connection.close()
    return {"rate": count / seconds}


async def floor_drain(*, url: str, count: int) -> dict[str, float]:
    """Rows a second, claimed a hundred at once and completed so."""
    connection = await _connect(url)
    await connection.execute(_INSERT_MANY, ["{}"] * count)
    began = time.perf_counter()
    while rows := await connection.fetch(_CLAIM, _CLAIMED_AT_ONCE):
        await connection.execute(_COMPLETE, [row[0] for row in rows])
    seconds = time.perf_counter() - began
    await connection.close()
    return {"rate": count / seconds}


async def floor_low_load(*, url: str, count: int, gap: float) -> dict[str, float]:
    """Milliseconds to insert one and, told of it within the process, to claim it on another connection."""
    connection, worker = await _connect(url), await asyncpg.connect(url)
    took = []
    for _ in range(count):
        await asyncio.sleep(gap)
        began = time.perf_counter()
        async with connection.transaction():
            await connection.execute(_INSERT)
        await worker.fetch(_CLAIM, 1)
        took.append((time.perf_counter() - began) * 1000)
    await connection.close()
    await worker.close()
    return {"p50": percentile(took, 0.5)}
