"""The queries of archives. `owner` None means: all of the organization (owners and admins)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.db.listing import Clause, Page
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.storage.archives.model import Archive, ArchiveFormat, Left

LEASE = timedelta(seconds=10)
"""A server that makes or removes an archive says so often until then; after that another one removes it."""

_COLUMNS = (
    "a.id, a.session_id, a.user_id, a.format, a.size_bytes, a.content_bytes, a.file_count, a.sha256, a.created_at"
)
_SEEN = "a.organization_id = $1 AND ($2::uuid IS NULL OR a.user_id = $2) AND a.state = 'READY'"


async def begin(
    tx: Transaction,
    organization_id: UUID,
    session_id: UUID,
    user_id: UUID,
    archive_id: UUID,
    form: ArchiveFormat,
    request_id: UUID | None,
) -> bool:
    """A new archive that is being made; False while another call makes one of the same session."""
    await tx.execute(
        """UPDATE archives SET state = 'GONE', leased_until = now()
           WHERE organization_id = $1 AND session_id = $2 AND state = 'MAKING'
               AND (leased_until < now() OR request_id = $3)""",
        organization_id,
        session_id,
        request_id,
    )
    tag = await tx.execute(
        """INSERT INTO archives (organization_id, id, session_id, user_id, format, state, request_id, leased_until)
           VALUES ($1, $2, $3, $4, $5, 'MAKING', $6, now() + $7::interval) ON CONFLICT DO NOTHING""",
        organization_id,
        archive_id,
        session_id,
        user_id,
        form,
        request_id,
        LEASE,
    )
    return tag == "INSERT 0 1"


async def touch(tx: Transaction, organization_id: UUID, archive_id: UUID, more: int = 0) -> bool:
    """It is still being made, with so much more set aside; False when it was given up."""
    tag = await tx.execute(
        """UPDATE archives SET reserved_bytes = reserved_bytes + $3, leased_until = now() + $4::interval
           WHERE organization_id = $1 AND id = $2 AND state = 'MAKING'""",
        organization_id,
        archive_id,
        more,
        LEASE,
    )
    return tag == "UPDATE 1"


async def ready(
    tx: Transaction, organization_id: UUID, archive_id: UUID, *, size: int, content: int, files: int, sha256: str
) -> tuple[Archive, int] | None:
    """The archive, which is there now, and how much was set aside for it; None when it was given up."""
    row: Any = await tx.fetchrow(
        f"""UPDATE archives a SET state = 'READY', size_bytes = $3, content_bytes = $4, file_count = $5, sha256 = $6,
                reserved_bytes = 0, created_at = now(), leased_until = NULL
            FROM (SELECT reserved_bytes FROM archives WHERE organization_id = $1 AND id = $2 FOR UPDATE) before
            WHERE a.organization_id = $1 AND a.id = $2 AND a.state = 'MAKING'
            RETURNING {_COLUMNS}, before.reserved_bytes AS reserved""",
        organization_id,
        archive_id,
        size,
        content,
        files,
        sha256,
    )
    return None if row is None else (_archive(row), row["reserved"])


async def get(tx: Transaction, organization_id: UUID, owner: UUID | None, session_id: UUID) -> Archive | None:
    """The archive of a session."""
    sql = f"SELECT {_COLUMNS} FROM archives a WHERE {_SEEN} AND a.session_id = $3"
    row = await tx.fetchrow(sql, organization_id, owner, session_id)
    return None if row is None else _archive(row)


async def list_archives(tx: Transaction, organization_id: UUID, owner: UUID | None, clause: Clause) -> Page[Archive]:
    """A page of archives; the clause's placeholders start at 3."""
    rows = await tx.fetch(
        f"""SELECT {_COLUMNS}, {clause.cursor_sql} FROM archives a WHERE {_SEEN} AND {clause.where_sql}
            ORDER BY {clause.order_sql}""",
        organization_id,
        owner,
        *clause.args,
    )
    return clause.page(rows, _archive)


async def fitting(
    tx: Transaction, organization_id: UUID, owner: UUID | None, clause: Clause, older_than: timedelta
) -> list[Archive]:
    """The archives that fit and are old enough; the clause's placeholders start at 4."""
    rows = await tx.fetch(
        f"""SELECT {_COLUMNS} FROM archives a
            WHERE {_SEEN} AND a.created_at <= now() - $3::interval AND {clause.where_sql}
            ORDER BY {clause.order_sql} FOR UPDATE""",
        organization_id,
        owner,
        older_than,
        *clause.args,
    )
    return [_archive(row) for row in rows]


async def expired(tx: Transaction, older_than: timedelta, limit: int) -> list[tuple[UUID, Archive]]:
    """Archives of all organizations that are older, each with its organization, locked."""
    rows = await tx.fetch(
        f"""SELECT a.organization_id, {_COLUMNS} FROM archives a
            WHERE a.state = 'READY' AND a.created_at < now() - $1::interval
            ORDER BY a.created_at LIMIT $2 FOR UPDATE SKIP LOCKED""",
        older_than,
        limit,
    )
    return [(row["organization_id"], _archive(row)) for row in rows]


async def give_up(tx: Transaction, organization_id: UUID, archive_ids: Sequence[UUID]) -> list[Left]:
    """They are no more; what is to be removed, by the caller first."""
    rows = await tx.fetch(
        """UPDATE archives SET state = 'GONE', leased_until = now() + $3::interval
           WHERE organization_id = $1 AND id = ANY($2::uuid[]) AND state <> 'GONE'
           RETURNING organization_id, id, session_id, user_id""",
        organization_id,
        list(archive_ids),
        LEASE,
    )
    return [_left(row) for row in rows]


async def is_ready(tx: Transaction, organization_id: UUID, archive_id: UUID) -> bool:
    """Whether it is there for good."""
    sql = "SELECT state = 'READY' FROM archives WHERE organization_id = $1 AND id = $2"
    return bool(await tx.fetchval(sql, organization_id, archive_id))


async def abandon(tx: Transaction, organization_id: UUID, archive_id: UUID) -> list[Left]:
    """It will not be made; what is to be removed. Nothing when it is there already."""
    rows = await tx.fetch(
        """UPDATE archives SET state = 'GONE', leased_until = now() + $3::interval
           WHERE organization_id = $1 AND id = $2 AND state <> 'READY'
           RETURNING organization_id, id, session_id, user_id""",
        organization_id,
        archive_id,
        LEASE,
    )
    return [_left(row) for row in rows]


async def take_left(tx: Transaction, limit: int) -> list[Left]:
    """What nobody makes or removes any more, of all organizations; now the caller's to remove."""
    rows = await tx.fetch(
        """UPDATE archives SET state = 'GONE', leased_until = now() + $2::interval
           WHERE (organization_id, id) IN (
               SELECT organization_id, id FROM archives WHERE state <> 'READY' AND leased_until < now()
               ORDER BY leased_until LIMIT $1 FOR UPDATE SKIP LOCKED)
           RETURNING organization_id, id, session_id, user_id""",
        limit,
        LEASE,
    )
    return [_left(row) for row in rows]


async def removed(tx: Transaction, left: Left) -> tuple[int, int] | None:
    """Nothing is left of it: how many bytes it counted for, stored and set aside; None when that is known already."""
    row = await tx.fetchrow(
        """DELETE FROM archives WHERE organization_id = $1 AND id = $2 AND state = 'GONE'
           RETURNING size_bytes, reserved_bytes""",
        left.organization_id,
        left.id,
    )
    return None if row is None else (row["size_bytes"], row["reserved_bytes"])


async def stored(tx: Transaction, organization_id: UUID, user_id: UUID | None) -> tuple[int, int]:
    """How many bytes the archives of a user, or of all, have, and how many there are."""
    row: Any = await tx.fetchrow(
        f"""SELECT coalesce(sum(a.size_bytes), 0)::bigint AS bytes, count(*) AS archives
            FROM archives a WHERE {_SEEN}""",
        organization_id,
        user_id,
    )
    return row["bytes"], row["archives"]


def _archive(row: Record) -> Archive:
    return Archive(
        id=row["id"],
        session_id=row["session_id"],
        user_id=row["user_id"],
        format=ArchiveFormat(row["format"]),
        size_bytes=row["size_bytes"],
        content_bytes=row["content_bytes"],
        file_count=row["file_count"],
        sha256=row["sha256"],
        created_at=row["created_at"],
    )


def _left(row: Record) -> Left:
    return Left(row["organization_id"], row["id"], row["session_id"], row["user_id"])
