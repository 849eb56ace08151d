"""The queries of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from stationmaster_server.audit.merkle import Frontier
from stationmaster_server.audit.model import Checkpoint
from stationmaster_server.db.transaction import Transaction

_LOCK = 0x41555349  # any number of our own


class Unsigned(NamedTuple):
    """A tree that has grown since its last checkpoint."""

    organization_id: UUID
    tree: Frontier


class Signed(NamedTuple):
    """A new checkpoint."""

    organization_id: UUID
    size: int
    root: bytes
    note: str


async def try_lock(tx: Transaction) -> bool:
    """Let one server sign at a time; False: another does."""
    return bool(await tx.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK))


async def unsigned(tx: Transaction, limit: int) -> list[Unsigned]:
    """The trees that have grown since they were signed."""
    sql = """
    SELECT h.organization_id, h.last_sequence, h.frontier
    FROM audit_heads h LEFT JOIN audit_checkpoints c USING (organization_id)
    WHERE h.last_sequence > coalesce(c.size, 0) LIMIT $1
    """
    return [Unsigned(row[0], Frontier(row[1], row[2])) for row in await tx.fetch(sql, limit)]


async def sign(tx: Transaction, signed: Sequence[Signed]) -> None:
    """Keep new checkpoints. One never becomes smaller."""
    sql = """
    INSERT INTO audit_checkpoints AS c (organization_id, size, root, note)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::text[])
    ON CONFLICT (organization_id) DO UPDATE
        SET size = excluded.size, root = excluded.root, note = excluded.note, signed_at = now()
        WHERE excluded.size > c.size
    """
    await tx.execute(sql, *map(list, zip(*signed, strict=True)))


async def newest(tx: Transaction, organization_id: UUID) -> Checkpoint | None:
    """The newest checkpoint of an organization."""
    sql = """SELECT size, root, note, signed_at, cosigned_size, cosigned_note
             FROM audit_checkpoints WHERE organization_id = $1"""
    row = await tx.fetchrow(sql, organization_id)
    return None if row is None else Checkpoint(*row)


async def behind_seconds(tx: Transaction) -> float:
    """For how long the longest waiting event that has its place is not under a checkpoint (a system transaction)."""
    sql = """
    SELECT coalesce(extract(epoch FROM max(now() - p.created_at)), 0)::float8
    FROM audit_heads h LEFT JOIN audit_checkpoints c USING (organization_id)
    JOIN audit_positions p ON p.organization_id = h.organization_id AND p.sequence = coalesce(c.size, 0) + 1
    WHERE h.last_sequence > coalesce(c.size, 0)
    """
    return float(await tx.fetchval(sql))


class Due(NamedTuple):
    """A checkpoint to show to witnesses and to copy; `cosigned_note` with the cosignatures that it has."""

    organization_id: UUID
    size: int
    note: str
    cosigned_note: str


async def claim_due(tx: Transaction, every_seconds: float, limit: int) -> list[Due]:
    """Checkpoints that were not published yet, each taken by one server (an autocommit system transaction)."""
    sql = """
    UPDATE audit_checkpoints SET publish_after = now() + make_interval(secs => $1)
    WHERE organization_id IN (
        SELECT organization_id FROM audit_checkpoints WHERE publish_after <= now() AND size > published_size
        ORDER BY publish_after LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING organization_id, size, note, CASE WHEN cosigned_size = size THEN cosigned_note ELSE '' END
    """
    return [Due(*row) for row in await tx.fetch(sql, every_seconds, limit)]


async def published(tx: Transaction, due: Due, note: str, *, done: bool) -> None:
    """Keep a checkpoint with its cosignatures; `done`: do not publish it again (a system transaction)."""
    sql = """
    UPDATE audit_checkpoints SET
        published_size = CASE WHEN $5 THEN $2 ELSE published_size END,
        cosigned_size = CASE WHEN $4 THEN $2 ELSE cosigned_size END,
        cosigned_note = CASE WHEN $4 THEN $3 ELSE cosigned_note END
    WHERE organization_id = $1 AND published_size < $2 AND cosigned_size <= $2
    """
    await tx.execute(sql, due.organization_id, due.size, note, note != due.note, done)


async def witnessed(tx: Transaction, organization_id: UUID, witness: str) -> int:
    """The size of the last checkpoint that a witness cosigned; 0 before the first (a system transaction)."""
    sql = "SELECT size FROM audit_witnesses WHERE organization_id = $1 AND witness = $2"
    return int(await tx.fetchval(sql, organization_id, witness) or 0)


async def set_witnessed(tx: Transaction, organization_id: UUID, witness: str, size: int) -> None:
    """Note what a witness has seen (a system transaction)."""
    sql = """INSERT INTO audit_witnesses (organization_id, witness, size) VALUES ($1, $2, $3)
             ON CONFLICT (organization_id, witness) DO UPDATE SET size = excluded.size"""
    await tx.execute(sql, organization_id, witness, size)
