"""The queries of grants."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.credentials.model import Credential, Grant
from stationmaster_server.db.listing import Clause, Field, Listing, Page
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction

_COLUMNS = "g.id, g.principal, g.purposes, g.expires_at, g.creator_id, g.created_at"

LISTING = Listing(
    {"principal": Field("g.principal", str), "create_time": Field("g.created_at", datetime)},
    key="g.id",
    default_order="create_time desc",
)


async def insert(tx: Transaction, organization_id: UUID, of: Credential, new: Grant) -> Grant:
    """A new grant; its time is the database's."""
    sql = f"""
    INSERT INTO credential_grants AS g (organization_id, id, uid, principal, purposes, expires_at, creator_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}
    """
    row: Any = await tx.fetchrow(
        sql, organization_id, new.id, of.uid, new.principal, list(new.purposes), new.expires_at, new.creator_id
    )
    return _grant(row, of)


async def find_equal(tx: Transaction, organization_id: UUID, of: Credential, new: Grant) -> str | None:
    """The name of a grant that gives the same principal the same, of a credential whose row is locked."""
    sql = """
    SELECT id FROM credential_grants
    WHERE organization_id = $1 AND uid = $2 AND principal = $3 AND purposes @> $4 AND purposes <@ $4
      AND expires_at IS NOT DISTINCT FROM $5 LIMIT 1
    """
    found = await tx.fetchval(sql, organization_id, of.uid, new.principal, list(new.purposes), new.expires_at)
    return None if found is None else f"{of.name}/grants/{found}"


async def delete(tx: Transaction, organization_id: UUID, of: Credential, grant_id: UUID) -> Grant | None:
    """Take a grant back; None when there is none."""
    sql = f"DELETE FROM credential_grants g WHERE organization_id = $1 AND uid = $2 AND id = $3 RETURNING {_COLUMNS}"
    row = await tx.fetchrow(sql, organization_id, of.uid, grant_id)
    return None if row is None else _grant(row, of)


async def delete_of(tx: Transaction, organization_id: UUID, principal: str) -> list[str]:
    """Take back all that a principal was granted; returns the grants' names."""
    sql = """
    DELETE FROM credential_grants g USING credentials c
    WHERE g.organization_id = $1 AND g.principal = $2 AND c.organization_id = $1 AND c.uid = g.uid
    RETURNING c.credential_id, g.id
    """
    rows = await tx.fetch(sql, organization_id, principal)
    return sorted(f"credentials/{row['credential_id']}/grants/{row['id']}" for row in rows)


async def list_grants(
    tx: Transaction, organization_id: UUID, of: Credential, principals: tuple[str, ...] | None, clause: Clause
) -> Page[Grant]:
    """A page of grants, of some principals or (None) of all; the clause's placeholders start at 4."""
    sql = f"""
    SELECT {_COLUMNS}, {clause.cursor_sql} FROM credential_grants g
    WHERE g.organization_id = $1 AND g.uid = $2 AND ($3::text[] IS NULL OR g.principal = ANY($3)) AND {clause.where_sql}
    ORDER BY {clause.order_sql}
    """
    wanted = None if principals is None else list(principals)
    rows = await tx.fetch(sql, organization_id, of.uid, wanted, *clause.args)
    return clause.page(rows, lambda row: _grant(row, of))


async def count(tx: Transaction, organization_id: UUID, uid: UUID) -> int:
    """How many grants a credential has; its row is locked."""
    sql = "SELECT count(*) FROM credential_grants WHERE organization_id = $1 AND uid = $2"
    return int(await tx.fetchval(sql, organization_id, uid))


def _grant(row: Record, of: Credential) -> Grant:
    return Grant(
        row["id"],
        of.credential_id,
        row["principal"],
        tuple(row["purposes"]),
        row["expires_at"],
        row["creator_id"],
        row["created_at"],
    )
