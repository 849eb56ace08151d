"""The queries of the audit trail. Every one of a tenant names the organization, whatever row-level security does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from stationmaster_server.audit.model import AuditEvent, Category, Outcome
from stationmaster_server.audit.rows import Row, created_at
from stationmaster_server.db.listing import Clause, Page
from stationmaster_server.db.transaction import Transaction

_COLUMNS = ", ".join(Row._fields)
_EVENT = ", ".join(f"e.{field}" for field in Row._fields)
_TYPES = ["uuid", "timestamptz", "uuid", *["text"] * 11]

_WRITE = f"""
WITH written AS (
    INSERT INTO audit_events ({_COLUMNS}) VALUES ({", ".join(f"${n}" for n in range(1, len(Row._fields) + 1))})
)
INSERT INTO audit_queue (organization_id, event_id, created_at) VALUES ($1, $3, $2)
"""


async def write(tx: Transaction, row: Row) -> None:
    """Write an event, and queue it for its place."""
    await tx.execute(_WRITE, *row)


_WRITE_MANY = f"""
WITH new AS (
    SELECT * FROM unnest({", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_TYPES, 1))}, $15::text[])
                  WITH ORDINALITY AS t({_COLUMNS}, position)
), written AS (
    INSERT INTO audit_events ({_COLUMNS}) SELECT {", ".join(Row._fields[:-1])}, details::json FROM new
)
INSERT INTO audit_queue (organization_id, event_id, created_at)
SELECT organization_id, id, created_at FROM new ORDER BY position
"""


async def write_many(tx: Transaction, rows: Sequence[Row], details: Sequence[str]) -> None:
    """Write events in one statement; `details` as JSON text."""
    columns = [[row[index] for row in rows] for index in range(len(Row._fields) - 1)]
    await tx.execute(_WRITE_MANY, *columns, list(details))


async def heads(tx: Transaction, organizations: Sequence[UUID]) -> dict[UUID, int]:
    """The last sequence of each organization that has one (a system transaction)."""
    sql = "SELECT organization_id, last_sequence FROM audit_heads WHERE organization_id = ANY($1::uuid[])"
    return {row["organization_id"]: row["last_sequence"] for row in await tx.fetch(sql, list(organizations))}


async def head(tx: Transaction, organization_id: UUID) -> int:
    """The last sequence of an organization; 0 before the first."""
    sql = "SELECT last_sequence FROM audit_heads WHERE organization_id = $1"
    return int(await tx.fetchval(sql, organization_id) or 0)


async def get(tx: Transaction, organization_id: UUID, event_id: UUID) -> AuditEvent | None:
    """One event."""
    sql = f"""
    SELECT {_EVENT}, coalesce(p.sequence, 0) AS sequence
    FROM audit_events e LEFT JOIN audit_positions p ON p.organization_id = $1 AND p.event_id = e.id
    WHERE e.organization_id = $1 AND e.created_at = $2 AND e.id = $3
    """
    row = await tx.fetchrow(sql, organization_id, created_at(event_id), event_id)
    return None if row is None else _event(row)


async def get_written(tx: Transaction, organization_id: UUID, event_id: UUID) -> AuditEvent:
    """An event that this transaction wrote."""
    event = await get(tx, organization_id, event_id)
    if event is None:
        raise RuntimeError(f"auditEvents/{event_id} is not there")
    return event


async def list_events(tx: Transaction, organization_id: UUID, clause: Clause) -> Page[AuditEvent]:
    """A page of events; the clause's placeholders start at 2."""
    sql = f"""
    SELECT {_EVENT}, coalesce(p.sequence, 0) AS sequence, {clause.cursor_sql}
    FROM audit_events e LEFT JOIN audit_positions p ON p.organization_id = $1 AND p.event_id = e.id
    WHERE e.organization_id = $1 AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    return clause.page(await tx.fetch(sql, organization_id, *clause.args), _event)


async def read_after(
    tx: Transaction, organization_id: UUID, after: int, last: int, where_sql: str, args: Sequence[Any]
) -> list[AuditEvent]:
    """The events with sequences above `after` up to `last` that match; the condition's placeholders start at 4."""
    sql = f"""
    SELECT {_EVENT}, p.sequence
    FROM audit_positions p JOIN audit_events e
      ON e.organization_id = p.organization_id AND e.id = p.event_id AND e.created_at = p.created_at
    WHERE p.organization_id = $1 AND p.sequence > $2 AND p.sequence <= $3 AND {where_sql} ORDER BY p.sequence
    """
    return [_event(row) for row in await tx.fetch(sql, organization_id, after, last, *args)]


def _event(row: Any) -> AuditEvent:
    values = {name: row[name] for name in (*Row._fields, "sequence")}
    values["category"] = Category(values["category"])
    values["outcome"] = Outcome(values["outcome"])
    return AuditEvent(**values)
