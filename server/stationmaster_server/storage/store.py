"""The queries of reports. `owner` None means: all of the organization (owners and admins)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.listing import Clause, Page
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.storage.model import PIECE_BYTES, NewReport, ReportFormat, StoredReport

_COLUMNS = "r.id, r.user_id, r.execution_id, r.title, r.format, r.size_bytes, r.sha256, r.created_at"

_INSERT = f"""
WITH r AS (
    INSERT INTO reports (organization_id, id, user_id, execution_id, title, format, size_bytes, sha256)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING *
), pieces AS (
    INSERT INTO report_pieces (organization_id, report_id, number, data)
    SELECT $1, $2, (number - 1)::int, data FROM unnest($9::bytea[]) WITH ORDINALITY AS piece(data, number)
)
SELECT {_COLUMNS} FROM r
"""


async def insert(
    tx: Transaction, organization_id: UUID, report_id: UUID, user_id: UUID, new: NewReport, sha256: str
) -> StoredReport:
    """A new report with its pieces."""
    data = memoryview(new.data)
    row = await tx.fetchrow(
        _INSERT,
        organization_id,
        report_id,
        user_id,
        new.execution_id,
        new.title,
        new.format,
        len(data),
        sha256,
        [bytes(data[start : start + PIECE_BYTES]) for start in range(0, len(data), PIECE_BYTES)],
    )
    if row is None:
        raise RuntimeError("INSERT .. RETURNING gave no row")
    return _report(row)


async def get(tx: Transaction, organization_id: UUID, owner: UUID | None, report_id: UUID) -> StoredReport | None:
    """One report."""
    row = await tx.fetchrow(
        f"""SELECT {_COLUMNS} FROM reports r
            WHERE r.organization_id = $1 AND ($2::uuid IS NULL OR r.user_id = $2) AND r.id = $3""",
        organization_id,
        owner,
        report_id,
    )
    return None if row is None else _report(row)


async def list_reports(
    tx: Transaction, organization_id: UUID, owner: UUID | None, clause: Clause
) -> Page[StoredReport]:
    """A page of reports; the clause's placeholders start at 3."""
    rows = await tx.fetch(
        f"""SELECT {_COLUMNS}, {clause.cursor_sql} FROM reports r
            WHERE r.organization_id = $1 AND ($2::uuid IS NULL OR r.user_id = $2) AND {clause.where_sql}
            ORDER BY {clause.order_sql}""",
        organization_id,
        owner,
        *clause.args,
    )
    return clause.page(rows, _report)


async def piece(tx: Transaction, organization_id: UUID, report_id: UUID, number: int) -> bytes | None:
    """The piece of this number, from 0."""
    data: bytes | None = await tx.fetchval(
        "SELECT data FROM report_pieces WHERE organization_id = $1 AND report_id = $2 AND number = $3",
        organization_id,
        report_id,
        number,
    )
    return data


async def delete_old(tx: Transaction, older_than: timedelta, limit: int) -> list[tuple[UUID, StoredReport]]:
    """Delete reports of all organizations that are older; each with its organization (a system transaction)."""
    rows = await tx.fetch(
        f"""DELETE FROM reports r WHERE (r.organization_id, r.id) IN (
                SELECT organization_id, id FROM reports WHERE created_at < now() - $1::interval
                ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)
            RETURNING r.organization_id, {_COLUMNS}""",
        older_than,
        limit,
    )
    return [(row["organization_id"], _report(row)) for row in rows]


async def delete_of(tx: Transaction, organization_id: UUID, execution_ids: Sequence[UUID]) -> list[StoredReport]:
    """Delete the reports of executions; returns those that there were."""
    rows = await tx.fetch(
        f"""DELETE FROM reports r WHERE r.organization_id = $1 AND r.execution_id = ANY($2::uuid[])
            RETURNING {_COLUMNS}""",
        organization_id,
        list(execution_ids),
    )
    return [_report(row) for row in rows]


def _report(row: Record) -> StoredReport:
    return StoredReport(
        id=row["id"],
        user_id=row["user_id"],
        execution_id=row["execution_id"],
        title=row["title"],
        format=ReportFormat(row["format"]),
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        created_at=row["created_at"],
    )
