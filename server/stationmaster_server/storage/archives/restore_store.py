"""The queries of restores: their files are uploads of one writer, and then changes that are made together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.storage import batch_store
from stationmaster_server.storage.archives.model import Member
from stationmaster_server.storage.batch_store import Batch
from stationmaster_server.storage.places.place import Home

_AT_MOST = timedelta(days=1)
"""No restore takes so long."""


async def begin(
    tx: Transaction, batch: Batch, upload_ids: Sequence[UUID], plan: Sequence[Member], lease: timedelta
) -> None:
    """An upload for each file, with its bytes set aside. They are given up with their batch, not each by itself."""
    await tx.execute(
        """INSERT INTO uploads (organization_id, session_id, id, user_id, path, size_bytes, sha256, etag, state,
               resumable, reserved_bytes, writer, expires_at)
           SELECT $1, $2, id, $4, path, size, sha256, '', 'RECEIVING', false, size, $3, now() + $5::interval
           FROM unnest($6::uuid[], $7::text[], $8::bigint[], $9::text[]) AS files(id, path, size, sha256)""",
        *_key(batch),
        batch.user_id,
        _AT_MOST,
        list(upload_ids),
        [member.path for member in plan],
        [member.size_bytes for member in plan],
        [member.sha256 for member in plan],
    )
    await batch_store.begin(tx, batch, lease)


async def claim(tx: Transaction, batch: Batch, lease: timedelta) -> bool:
    """Hold the paths of all files; no other change of the workspace, whose row is locked, may be under way.

    False when the batch was given up.
    """
    if not await batch_store.extend(tx, batch, lease, decided=False):
        return False
    await tx.execute(
        """INSERT INTO file_changes (organization_id, session_id, id, kind, path, upload_id, user_id, batch_id,
               leased_until)
           SELECT organization_id, session_id, id, 'PUT', path, id, user_id, writer, now() FROM uploads
           WHERE organization_id = $1 AND session_id = $2 AND writer = $3 AND state = 'RECEIVING'""",
        *_key(batch),
    )
    return True


async def decide(tx: Transaction, batch: Batch, count: int) -> bool:
    """All files will take their places; False when the batch was given up."""
    finishing = await tx.execute(
        """UPDATE uploads SET state = 'FINISHING'
           WHERE organization_id = $1 AND session_id = $2 AND writer = $3 AND state = 'RECEIVING'""",
        *_key(batch),
    )
    decided = await tx.execute(
        """UPDATE file_changes SET decided = true WHERE organization_id = $1 AND session_id = $2 AND batch_id = $3""",
        *_key(batch),
    )
    return await batch_store.decide(tx, batch) and finishing == decided == f"UPDATE {count}"


async def give_up(tx: Transaction, batch: Batch) -> list[UUID]:
    """What was not decided will not be; the uploads whose bytes are to be thrown away."""
    await batch_store.forget(tx, batch)
    await tx.execute(
        """DELETE FROM file_changes
           WHERE organization_id = $1 AND session_id = $2 AND batch_id = $3 AND NOT decided""",
        *_key(batch),
    )
    rows = await tx.fetch(
        """UPDATE uploads SET state = 'GIVEN_UP', expires_at = now() + interval '1 minute'
           WHERE organization_id = $1 AND session_id = $2 AND writer = $3 AND state = 'RECEIVING' RETURNING id""",
        *_key(batch),
    )
    return [row["id"] for row in rows]


async def forget(tx: Transaction, home: Home, upload_ids: Sequence[UUID]) -> int:
    """Forget uploads that were given up; how many bytes were set aside for them."""
    rows = await tx.fetch(
        """DELETE FROM uploads WHERE organization_id = $1 AND session_id = $2 AND id = ANY($3::uuid[])
               AND state = 'GIVEN_UP'
           RETURNING reserved_bytes""",
        home.organization_id,
        home.session_id,
        list(upload_ids),
    )
    return sum(int(row["reserved_bytes"]) for row in rows)


def _key(batch: Batch) -> tuple[UUID, UUID, UUID]:
    return batch.home.organization_id, batch.home.session_id, batch.id
