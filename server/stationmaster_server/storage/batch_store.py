"""The queries of batches: changes of one workspace that are decided at once, under one lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.storage.file_model import Change
from stationmaster_server.storage.file_store import LEASE, change_of
from stationmaster_server.storage.places.place import Home

_KEPT = timedelta(hours=25)
"""Longer than the ids of requests are known."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that are made together."""

    home: Home
    id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a batch: whether changes are left, how many cannot be made, and why the first cannot."""

    left: bool
    failed: int = 0
    reason: str = ""
    error: str = ""


async def begin(tx: Transaction, batch: Batch, lease: timedelta) -> None:
    """A batch that is not decided yet."""
    await tx.execute(
        """INSERT INTO file_batches (organization_id, session_id, id, user_id, leased_until)
           VALUES ($1, $2, $3, $4, clock_timestamp() + $5::interval)""",
        *_key(batch),
        batch.user_id,
        lease,
    )


async def extend(tx: Transaction, batch: Batch, lease: timedelta, *, decided: bool) -> bool:
    """It goes on; False when it was given up, has ended, or is decided by now, or not yet."""
    tag = await tx.execute(
        """UPDATE file_batches SET leased_until = clock_timestamp() + $4::interval
           WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND decided = $5
               AND leased_until IS NOT NULL""",
        *_key(batch),
        lease,
        decided,
    )
    return tag == "UPDATE 1"


async def decide(tx: Transaction, batch: Batch) -> bool:
    """Its changes will be made; False when it was given up."""
    tag = await tx.execute(
        """UPDATE file_batches SET decided = true, leased_until = clock_timestamp() + $4::interval
           WHERE organization_id = $1 AND session_id = $2 AND id = $3""",
        *_key(batch),
        LEASE,
    )
    return tag == "UPDATE 1"


async def failed(tx: Transaction, change: Change, reason: str, error: str) -> None:
    """One of its changes cannot be made."""
    await tx.execute(
        """UPDATE file_batches SET failed = failed + 1, reason = CASE failed WHEN 0 THEN $4 ELSE reason END,
               error = CASE failed WHEN 0 THEN $5 ELSE error END
           WHERE organization_id = $1 AND session_id = $2 AND id = $3""",
        change.home.organization_id,
        change.home.session_id,
        change.batch_id,
        reason,
        error,
    )


async def outcome(tx: Transaction, home: Home, batch_id: UUID) -> Outcome:
    """What has become of it so far."""
    row = await tx.fetchrow(
        """SELECT failed, reason, error, leased_until IS NOT NULL AS left FROM file_batches
           WHERE organization_id = $1 AND session_id = $2 AND id = $3""",
        home.organization_id,
        home.session_id,
        batch_id,
    )
    return Outcome(False) if row is None else Outcome(row["left"], row["failed"], row["reason"], row["error"])


async def end(tx: Transaction, batch: Batch) -> bool:
    """Nobody makes it any more, unless some of its changes are left; whether none is."""
    tag = await tx.execute(
        """UPDATE file_batches SET leased_until = NULL
           WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND NOT EXISTS (
               SELECT 1 FROM file_changes WHERE organization_id = $1 AND session_id = $2 AND batch_id = $3)""",
        *_key(batch),
    )
    return tag == "UPDATE 1"


async def forget(tx: Transaction, batch: Batch) -> None:
    """A batch that will not be decided."""
    await tx.execute(
        """DELETE FROM file_batches WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND NOT decided""",
        *_key(batch),
    )


async def release_left(tx: Transaction) -> None:
    """Give the paths free of batches that nobody has decided, nor will, and have their uploads given up.

    Forgets those that are done and that nobody will ask for.
    """
    await tx.execute(
        """WITH gone AS (
               DELETE FROM file_batches WHERE leased_until < now() AND NOT decided
               RETURNING organization_id, session_id, id
           ), freed AS (
               DELETE FROM file_changes c USING gone
               WHERE (c.organization_id, c.session_id, c.batch_id) = (gone.organization_id, gone.session_id, gone.id)
           )
           UPDATE uploads u SET expires_at = now() FROM gone
           WHERE (u.organization_id, u.session_id, u.writer) = (gone.organization_id, gone.session_id, gone.id)
               AND u.state = 'RECEIVING'"""
    )
    await tx.execute("DELETE FROM file_batches WHERE created_at < now() - $1::interval AND leased_until IS NULL", _KEPT)


async def take_left(tx: Transaction) -> Batch | None:
    """A decided batch of any organization that nobody makes any more; now the caller's to make."""
    row = await tx.fetchrow(
        """UPDATE file_batches SET leased_until = now() + $1::interval
           WHERE (organization_id, session_id, id) = (
               SELECT organization_id, session_id, id FROM file_batches WHERE leased_until < now() AND decided
               ORDER BY leased_until LIMIT 1 FOR UPDATE SKIP LOCKED)
           RETURNING organization_id, session_id, id, user_id""",
        LEASE,
    )
    return None if row is None else Batch(Home(row["organization_id"], row["session_id"]), row["id"], row["user_id"])


async def changes(tx: Transaction, batch: Batch, after: UUID | None, limit: int) -> Sequence[Change]:
    """Changes of a batch that are left, from one on."""
    rows = await tx.fetch(
        """SELECT * FROM file_changes
           WHERE organization_id = $1 AND session_id = $2 AND batch_id = $3 AND ($4::uuid IS NULL OR id > $4)
           ORDER BY id LIMIT $5""",
        *_key(batch),
        after,
        limit,
    )
    return [change_of(row) for row in rows]


def _key(batch: Batch) -> tuple[UUID, UUID, UUID]:
    return batch.home.organization_id, batch.home.session_id, batch.id
