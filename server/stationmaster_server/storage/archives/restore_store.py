"""The queries of restores: their files are uploads of one writer, and then changes that are made together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.storage.archives.model import Member
from stationmaster_server.storage.file_store import LEASE
from stationmaster_server.storage.places.place import Home


async def begin(
    tx: Transaction,
    home: Home,
    user_id: UUID,
    writer: UUID,
    upload_ids: Sequence[UUID],
    plan: Sequence[Member],
    keep: timedelta,
) -> None:
    """An upload for each file, with its bytes set aside."""
    await tx.execute(
        """INSERT INTO uploads (organization_id, session_id, id, user_id, path, size_bytes, sha256, etag, state,
               resumable, reserved_bytes, writer, expires_at)
           SELECT $1, $2, id, $3, path, size, sha256, '', 'RECEIVING', false, size, $4, now() + $5::interval
           FROM unnest($6::uuid[], $7::text[], $8::bigint[], $9::text[]) AS files(id, path, size, sha256)""",
        home.organization_id,
        home.session_id,
        user_id,
        writer,
        keep,
        list(upload_ids),
        [member.path for member in plan],
        [member.size_bytes for member in plan],
        [member.sha256 for member in plan],
    )


async def touch(tx: Transaction, home: Home, writer: UUID, keep: timedelta) -> None:
    """The restore goes on."""
    await tx.execute(
        """UPDATE uploads SET expires_at = now() + $4::interval
           WHERE organization_id = $1 AND session_id = $2 AND writer = $3 AND state = 'RECEIVING'""",
        home.organization_id,
        home.session_id,
        writer,
        keep,
    )


async def claim(tx: Transaction, home: Home, writer: UUID) -> None:
    """Hold the paths of all files; no other change of the workspace, whose row is locked, may be under way."""
    await tx.execute(
        """INSERT INTO file_changes (organization_id, session_id, id, kind, path, upload_id, user_id, leased_until)
           SELECT organization_id, session_id, id, 'PUT', path, id, user_id, now() + $4::interval FROM uploads
           WHERE organization_id = $1 AND session_id = $2 AND writer = $3 AND state = 'RECEIVING'""",
        home.organization_id,
        home.session_id,
        writer,
        LEASE,
    )


async def decide(tx: Transaction, home: Home, writer: UUID, upload_ids: Sequence[UUID]) -> bool:
    """All files will take their places; False when some of them, or of the claims, were given up."""
    finishing = await tx.execute(
        """UPDATE uploads SET state = 'FINISHING'
           WHERE organization_id = $1 AND session_id = $2 AND writer = $3 AND state = 'RECEIVING'""",
        home.organization_id,
        home.session_id,
        writer,
    )
    decided = await tx.execute(
        """UPDATE file_changes SET decided = true, leased_until = now() + $4::interval
           WHERE organization_id = $1 AND session_id = $2 AND id = ANY($3::uuid[])""",
        home.organization_id,
        home.session_id,
        list(upload_ids),
        LEASE,
    )
    return finishing == decided == f"UPDATE {len(upload_ids)}"


async def give_up(tx: Transaction, home: Home, writer: UUID, upload_ids: Sequence[UUID]) -> list[UUID]:
    """What was not decided will not be; the uploads whose bytes are to be thrown away."""
    await tx.execute(
        """DELETE FROM file_changes
           WHERE organization_id = $1 AND session_id = $2 AND id = ANY($3::uuid[]) AND NOT decided""",
        home.organization_id,
        home.session_id,
        list(upload_ids),
    )
    rows = await tx.fetch(
        """UPDATE uploads SET state = 'GIVEN_UP', expires_at = now() + interval '1 minute'
           WHERE organization_id = $1 AND session_id = $2 AND writer = $3 AND state = 'RECEIVING' RETURNING id""",
        home.organization_id,
        home.session_id,
        writer,
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
