"""The queries of uploads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.storage.file_model import Header, StoredFile, Upload, UploadState
from stationmaster_server.storage.places.place import Home, Sealed

_FILE = TypeAdapter(StoredFile)


async def get(tx: Transaction, home: Home, upload_id: UUID, *, lock: bool = False) -> Upload | None:
    """An upload; `lock`: nobody else changes it until the transaction ends."""
    row = await tx.fetchrow(
        f"""SELECT * FROM uploads WHERE organization_id = $1 AND session_id = $2 AND id = $3
            {"FOR UPDATE" if lock else ""}""",
        home.organization_id,
        home.session_id,
        upload_id,
    )
    return None if row is None else _upload(row)


async def insert(
    tx: Transaction, header: Header, upload_id: UUID, user_id: UUID, writer: UUID, keep: timedelta, *, resumable: bool
) -> Upload | None:
    """A new upload; None when there is one of this id by now."""
    row = await tx.fetchrow(
        """INSERT INTO uploads (organization_id, session_id, id, user_id, path, size_bytes, sha256, etag, state,
               resumable, writer, expires_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'RECEIVING', $9, $10, now() + $11::interval)
           ON CONFLICT DO NOTHING RETURNING *""",
        header.home.organization_id,
        header.home.session_id,
        upload_id,
        user_id,
        header.path,
        header.size_bytes,
        header.sha256,
        header.etag,
        resumable,
        writer,
        keep,
    )
    return None if row is None else _upload(row)


async def take_over(tx: Transaction, home: Home, upload_id: UUID, writer: UUID, keep: timedelta) -> Upload | None:
    """Another stream goes on with it: the one before must stop."""
    row = await tx.fetchrow(
        """UPDATE uploads SET writer = $4, expires_at = now() + $5::interval
           WHERE organization_id = $1 AND session_id = $2 AND id = $3 RETURNING *""",
        home.organization_id,
        home.session_id,
        upload_id,
        writer,
        keep,
    )
    return None if row is None else _upload(row)


async def touch(tx: Transaction, home: Home, upload: Upload, more: int, keep: timedelta) -> bool:
    """It goes on, with so much more set aside; False when another stream has taken it over, or it was given up."""
    tag = await tx.execute(
        """UPDATE uploads SET reserved_bytes = reserved_bytes + $5, expires_at = now() + $6::interval
           WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND writer = $4 AND state = 'RECEIVING'""",
        home.organization_id,
        home.session_id,
        upload.id,
        upload.writer,
        more,
        keep,
    )
    return tag == "UPDATE 1"


async def finishing(tx: Transaction, home: Home, upload: Upload, sealed: Sealed) -> bool:
    """Its bytes are all there; False when another stream has taken it over, or it was given up."""
    tag = await tx.execute(
        """UPDATE uploads SET state = 'FINISHING', size_bytes = $5, sha256 = $6
           WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND writer = $4 AND state = 'RECEIVING'""",
        home.organization_id,
        home.session_id,
        upload.id,
        upload.writer,
        sealed.size_bytes,
        sealed.sha256,
    )
    return tag == "UPDATE 1"


async def done(tx: Transaction, home: Home, upload_id: UUID, file: StoredFile, keep: timedelta) -> None:
    """Its file is there; nothing is set aside for it any more."""
    await tx.execute(
        """UPDATE uploads SET state = 'DONE', file = $4, reserved_bytes = 0, expires_at = now() + $5::interval
           WHERE organization_id = $1 AND session_id = $2 AND id = $3""",
        home.organization_id,
        home.session_id,
        upload_id,
        _FILE.dump_python(file, mode="json"),
        keep,
    )


async def give_up(tx: Transaction, home: Home, upload_id: UUID, writer: UUID) -> None:
    """What arrived of it is about to be deleted."""
    await tx.execute(
        """UPDATE uploads SET state = 'GIVEN_UP', writer = $4
           WHERE organization_id = $1 AND session_id = $2 AND id = $3""",
        home.organization_id,
        home.session_id,
        upload_id,
        writer,
    )


async def delete(tx: Transaction, home: Home, upload_id: UUID) -> Upload | None:
    """Forget an upload; what it was."""
    row = await tx.fetchrow(
        "DELETE FROM uploads WHERE organization_id = $1 AND session_id = $2 AND id = $3 RETURNING *",
        home.organization_id,
        home.session_id,
        upload_id,
    )
    return None if row is None else _upload(row)


async def take_expired(tx: Transaction, writer: UUID, limit: int) -> list[tuple[Home, Upload]]:
    """Uploads of all organizations that nobody went on with in time; given up by now. Those that are done are gone."""
    await tx.execute(
        """DELETE FROM uploads WHERE (organization_id, session_id, id) IN (
               SELECT organization_id, session_id, id FROM uploads WHERE expires_at < now() AND state = 'DONE'
               ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)""",
        limit,
    )
    rows: list[Any] = await tx.fetch(
        """UPDATE uploads SET state = 'GIVEN_UP', writer = $1, expires_at = now() + interval '1 minute'
           WHERE (organization_id, session_id, id) IN (
               SELECT organization_id, session_id, id FROM uploads
               WHERE expires_at < now() AND state IN ('RECEIVING', 'GIVEN_UP')
               ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING *""",
        writer,
        limit,
    )
    return [(Home(row["organization_id"], row["session_id"]), _upload(row)) for row in rows]


def _upload(row: Record) -> Upload:
    return Upload(
        session_id=row["session_id"],
        id=row["id"],
        user_id=row["user_id"],
        path=row["path"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        etag=row["etag"],
        state=UploadState(row["state"]),
        resumable=row["resumable"],
        reserved_bytes=row["reserved_bytes"],
        writer=row["writer"],
        file=None if row["file"] is None else _FILE.validate_python(row["file"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
