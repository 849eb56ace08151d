"""The floor of putting events into a tree: as many rows of that form and key, a thousand at a time from arrays."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime

import asyncpg

_SCHEMA = """
CREATE TABLE IF NOT EXISTS floor_positions (
    organization_id uuid, sequence bigint, event_id uuid, created_at timestamptz, commitment bytea,
    PRIMARY KEY (organization_id, sequence));
TRUNCATE floor_positions
"""
_INSERT = """
INSERT INTO floor_positions
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::timestamptz[], $5::bytea[])
"""
_AT_ONCE = 1000


async def floor_audit(*, url: str, count: int, organizations: int) -> dict[str, float]:
    """Rows a second, each thousand in a transaction of its own."""
    connection = await asyncpg.connect(url)
    await connection.execute(_SCHEMA)
    ids = [uuid.uuid4() for _ in range(organizations)]
    now = datetime.now(UTC)
    rows = [(ids[n % organizations], n, uuid.uuid4(), now, n.to_bytes(32, "big")) for n in range(count)]
    began = time.perf_counter()
    for at in range(0, count, _AT_ONCE):
        await connection.execute(_INSERT, *map(list, zip(*rows[at : at + _AT_ONCE], strict=True)))
    seconds = time.perf_counter() - began
    await connection.close()
    return {"rate": count / seconds}
