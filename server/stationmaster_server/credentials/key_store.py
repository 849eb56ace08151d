"""The queries of encryption keys and of their rotation: all in system transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg

from stationmaster_server.credentials.envelope import Place, Sealed
from stationmaster_server.credentials.model import KeyRotation, RotationState, ShownKey, StoredKey
from stationmaster_server.db.transaction import Transaction

CHANNEL = "stationmaster_credential_keys"
"""Tells every server to look at the keys again."""
_LOCK = 0x43524544  # any number of our own
_KEY = "key_id, provider, is_primary, canary, material, wraps, created_at"


async def lock(tx: Transaction) -> None:
    """Keep every other server from changing the keys until this transaction ends."""
    await tx.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def keys(tx: Transaction) -> list[StoredKey]:
    """Every key that is not retired, the primary one first."""
    rows = await tx.fetch(f"SELECT {_KEY} FROM credential_keys ORDER BY is_primary DESC, created_at, key_id")
    return [StoredKey(**dict(row)) for row in rows]


async def insert(tx: Transaction, key_id: str, provider: str, canary: bytes, material: bytes) -> None:
    """Note a key; it is not primary yet."""
    sql = "INSERT INTO credential_keys (key_id, provider, is_primary, canary, material) VALUES ($1, $2, false, $3, $4)"
    await tx.execute(sql, key_id, provider, canary, material)


async def is_retired(tx: Transaction, key_id: str) -> bool:
    """Whether an id was retired."""
    return bool(await tx.fetchval("SELECT EXISTS (SELECT FROM credential_retired_keys WHERE key_id = $1)", key_id))


class StillWraps(Exception):
    """A key was to be retired that wraps something, perhaps since a moment."""


async def retire(tx: Transaction, key_id: str) -> bool:
    """Take a key that is not primary out of use; whether there was one. Raises StillWraps."""
    sql = """
    WITH gone AS (DELETE FROM credential_keys WHERE key_id = $1 AND NOT is_primary RETURNING *)
    INSERT INTO credential_retired_keys (key_id, provider, wraps, created_at)
    SELECT key_id, provider, wraps, created_at FROM gone RETURNING true
    """
    try:
        return bool(await tx.fetchval(sql, key_id))
    except asyncpg.ForeignKeyViolationError as error:
        if error.constraint_name != "credential_versions_key_id_fkey":
            raise
        raise StillWraps from None


async def make_primary(tx: Transaction, key_id: str) -> None:
    """Have new versions wrapped by this key."""
    await tx.execute("UPDATE credential_keys SET is_primary = false WHERE is_primary AND key_id <> $1", key_id)
    await tx.execute("UPDATE credential_keys SET is_primary = true WHERE key_id = $1", key_id)
    await tell(tx)


async def tell(tx: Transaction) -> None:
    """Have every server look at the keys again."""
    await tx.execute("SELECT pg_notify($1, '')", CHANNEL)


async def reserve(tx: Transaction, key_id: str, count: int) -> int | None:
    """Count so many wraps of a key before they are made; returns how many there are, None when there is no such key."""
    sql = "UPDATE credential_keys SET wraps = wraps + $2 WHERE key_id = $1 RETURNING wraps"
    wraps: int | None = await tx.fetchval(sql, key_id, count)
    return wraps


async def wrapping(tx: Transaction, key_ids: Sequence[str]) -> list[str]:
    """Those of the keys that wrap something."""
    sql = """SELECT id FROM unnest($1::text[]) AS wanted(id)
             WHERE EXISTS (SELECT FROM credential_versions WHERE key_id = wanted.id)"""
    return [row["id"] for row in await tx.fetch(sql, list(key_ids))]


async def shown(tx: Transaction) -> list[ShownKey]:
    """Every key with how much it wraps, the primary one first, those that are retired last."""
    sql = """
    SELECT k.key_id, k.provider, k.is_primary, k.wraps, k.created_at, NULL::timestamptz AS retired_at,
           (SELECT count(*) FROM credential_versions v WHERE v.key_id = k.key_id) AS versions
    FROM credential_keys k
    UNION ALL
    (SELECT key_id, provider, false, wraps, created_at, retired_at, 0 FROM credential_retired_keys
     ORDER BY retired_at DESC LIMIT 100)
    ORDER BY retired_at NULLS FIRST, is_primary DESC, created_at, key_id
    """
    return [
        ShownKey(
            row["key_id"],
            row["provider"],
            row["is_primary"],
            False,
            row["versions"],
            row["wraps"],
            row["created_at"],
            row["retired_at"],
        )
        for row in await tx.fetch(sql)
    ]


_REMAINING = "(SELECT count(*) FROM credential_versions WHERE key_id <> target_key_id)"


async def rotation(tx: Transaction) -> KeyRotation | None:
    """The newest rotation."""
    sql = f"""SELECT state, target_key_id, total, done, {_REMAINING} AS remaining, started_at, ended_at
              FROM credential_key_rotation WHERE id = 1"""
    row = await tx.fetchrow(sql)
    return None if row is None else KeyRotation(RotationState(row["state"]), *tuple(row)[1:])


async def waiting(tx: Transaction, after: Place | None, size: int) -> tuple[str, int] | None:
    """The key that a running rotation changes to, and how many versions after a place wait for it: `size` at most.

    None while none runs; asked all the time, so nothing more is counted.
    """
    sql = """
    SELECT r.target_key_id, (SELECT count(*) FROM (
        SELECT FROM credential_versions
        WHERE key_id <> r.target_key_id AND ($1::uuid IS NULL OR (organization_id, uid, version) > ($1, $2, $3))
        LIMIT $4) AS next)
    FROM credential_key_rotation r WHERE id = 1 AND state = 'RUNNING'
    """
    row = await tx.fetchrow(sql, *_cursor(after), size)
    return None if row is None else (row[0], row[1])


async def start_rotation(tx: Transaction, key_id: str) -> None:
    """Begin to wrap everything by this key, or go on with that."""
    sql = """
    INSERT INTO credential_key_rotation AS r (id, state, target_key_id, total)
    SELECT 1, 'RUNNING', $1, count(*) FROM credential_versions WHERE key_id <> $1
    ON CONFLICT (id) DO UPDATE SET
        state = 'RUNNING', ended_at = NULL, target_key_id = excluded.target_key_id,
        total = CASE WHEN r.state = 'DONE' OR r.target_key_id <> $1 THEN excluded.total ELSE r.total END,
        done = CASE WHEN r.state = 'DONE' OR r.target_key_id <> $1 THEN 0 ELSE r.done END,
        started_at = CASE WHEN r.state = 'DONE' OR r.target_key_id <> $1 THEN now() ELSE r.started_at END
    """
    await tx.execute(sql, key_id)


async def set_rotation_state(tx: Transaction, state: RotationState) -> None:
    """Stop it, or note that it is done."""
    sql = """UPDATE credential_key_rotation
             SET state = $1, ended_at = CASE WHEN $1 = 'DONE' THEN now() END WHERE id = 1"""
    await tx.execute(sql, state)


class Wrapped(NamedTuple):
    """A version whose key is to be wrapped anew."""

    place: Place
    sealed: Sealed


async def running_target(tx: Transaction) -> str | None:
    """The key that a running rotation changes to. Its row is locked: nobody stops it now, and batches take turns."""
    sql = "SELECT target_key_id FROM credential_key_rotation WHERE id = 1 AND state = 'RUNNING' FOR NO KEY UPDATE"
    target: str | None = await tx.fetchval(sql)
    return target


async def take_batch(tx: Transaction, target: str, after: Place | None, size: int) -> list[Wrapped]:
    """Some versions that other keys wrap, after a place, which nobody else changes until this transaction ends."""
    sql = """
    SELECT organization_id, uid, version, wrapped_key, key_id, format FROM credential_versions
    WHERE key_id <> $1 AND ($2::uuid IS NULL OR (organization_id, uid, version) > ($2, $3, $4))
    ORDER BY organization_id, uid, version LIMIT $5 FOR NO KEY UPDATE SKIP LOCKED
    """
    rows = await tx.fetch(sql, target, *_cursor(after), size)
    return [
        Wrapped(
            Place(row["organization_id"], row["uid"], row["version"]),
            Sealed(b"", row["wrapped_key"], row["key_id"], row["format"]),
        )
        for row in rows
    ]


async def put_batch(tx: Transaction, wrapped: Sequence[Wrapped]) -> int:
    """Write keys that were wrapped anew, in one statement."""
    sql = """
    WITH new AS (
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bytea[], $5::text[])
                      AS t(organization_id, uid, version, wrapped_key, key_id)
    ), written AS (
        UPDATE credential_versions v SET wrapped_key = new.wrapped_key, key_id = new.key_id FROM new
        WHERE v.organization_id = new.organization_id AND v.uid = new.uid AND v.version = new.version RETURNING true
    )
    UPDATE credential_key_rotation SET done = done + (SELECT count(*) FROM written) WHERE id = 1
    RETURNING (SELECT count(*) FROM written)
    """
    columns: list[list[Any]] = [
        [one.place.organization_id for one in wrapped],
        [one.place.uid for one in wrapped],
        [one.place.version for one in wrapped],
        [one.sealed.wrapped_key for one in wrapped],
        [one.sealed.key_id for one in wrapped],
    ]
    return int(await tx.fetchval(sql, *columns))


async def remaining(tx: Transaction, target: str) -> int:
    """How many versions other keys wrap."""
    return int(await tx.fetchval("SELECT count(*) FROM credential_versions WHERE key_id <> $1", target))


def _cursor(after: Place | None) -> tuple[object, object, object]:
    return (None, None, None) if after is None else (after.organization_id, after.uid, after.version)
