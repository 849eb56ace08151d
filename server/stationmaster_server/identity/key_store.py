"""The queries of API keys and of authentication."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.db.listing import Clause, Page
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity.model import ApiKey, Role

KEY = (
    "k.id, k.organization_id, k.user_id, k.display_name, k.prefix, k.scopes, k.expires_at, k.revoked_at,"
    " k.last_used_at, k.created_at"
)
CHANNEL = "stationmaster_identity"
"""Tells every server what it must no longer believe: `key:{prefix}`, `user:{id}` or `quota:{subject id}`."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A user as authentication sees it."""

    organization_id: UUID
    user_id: UUID
    role: Role
    disabled: bool


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as authentication sees it, with its user."""

    id: UUID
    user: Principal
    prefix: str
    secret_hash: bytes = field(repr=False)
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked: bool
    last_used_at: datetime | None


async def insert_key(tx: Transaction, key: ApiKey, secret_hash: bytes) -> ApiKey:
    """A new key; its time is the database's."""
    sql = f"""
    INSERT INTO api_keys AS k (organization_id, id, user_id, display_name, prefix, secret_hash, scopes, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING {KEY}
    """
    row = await tx.fetchrow(
        sql,
        key.organization_id,
        key.id,
        key.user_id,
        key.display_name,
        key.prefix,
        secret_hash,
        list(key.scopes),
        key.expires_at,
    )
    return key_of(row)


async def get_key(tx: Transaction, organization_id: UUID, key_id: UUID) -> ApiKey | None:
    """One key."""
    row = await tx.fetchrow(
        f"SELECT {KEY} FROM api_keys k WHERE organization_id = $1 AND id = $2", organization_id, key_id
    )
    return None if row is None else key_of(row)


async def revoke_key(tx: Transaction, organization_id: UUID, key_id: UUID) -> ApiKey | None:
    """Revoke a key, for good; the time of a key that is revoked already stays."""
    sql = f"""
    UPDATE api_keys k SET revoked_at = coalesce(revoked_at, now())
    WHERE organization_id = $1 AND id = $2 RETURNING {KEY}
    """
    row = await tx.fetchrow(sql, organization_id, key_id)
    return None if row is None else key_of(row)


async def list_keys(tx: Transaction, organization_id: UUID, user_id: UUID | None, clause: Clause) -> Page[ApiKey]:
    """A page of an organization's keys, or of one user's; the clause's placeholders start at 3."""
    sql = f"""
    SELECT {KEY}, {clause.cursor_sql} FROM api_keys k
    WHERE k.organization_id = $1 AND ($2::uuid IS NULL OR k.user_id = $2) AND {clause.where_sql}
    ORDER BY {clause.order_sql}
    """
    return clause.page(await tx.fetch(sql, organization_id, user_id, *clause.args), key_of)


async def all_keys(tx: Transaction) -> list[ApiKey]:
    """The keys of every organization, oldest first (a system transaction)."""
    return [key_of(row) for row in await tx.fetch(f"SELECT {KEY} FROM api_keys k ORDER BY k.id")]


async def organization_of_key(tx: Transaction, key_id: UUID) -> UUID | None:
    """The organization of a key (a system transaction)."""
    organization_id: UUID | None = await tx.fetchval("SELECT organization_id FROM api_keys WHERE id = $1", key_id)
    return organization_id


async def notify(tx: Transaction, payload: str) -> None:
    """Tell every server, with the commit. Administrators' changes only: no call of the hot paths does this."""
    await tx.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)


async def find_key(tx: Transaction, prefix: str) -> KeyRecord | None:
    """The key of a prefix, in whichever organization (a system transaction)."""
    sql = """
    SELECT k.id, k.organization_id, k.user_id, u.role, u.disabled_at, k.prefix, k.secret_hash, k.scopes, k.expires_at,
           k.revoked_at, k.last_used_at
    FROM api_keys k JOIN users u ON u.organization_id = k.organization_id AND u.id = k.user_id
    WHERE k.prefix = $1
    """
    row = await tx.fetchrow(sql, prefix)
    if row is None:
        return None
    return KeyRecord(
        id=row["id"],
        user=_principal(row),
        prefix=row["prefix"],
        secret_hash=row["secret_hash"],
        scopes=frozenset(row["scopes"]),
        expires_at=row["expires_at"],
        revoked=row["revoked_at"] is not None,
        last_used_at=row["last_used_at"],
    )


async def find_subject(tx: Transaction, subject: str, organization_id: UUID | None) -> Principal | None:
    """The user that a token or certificate names (a system transaction).

    Without an organization only in an installation that has no more than one: otherwise whoever may make users could
    take over somebody else's subject.
    """
    sql = """
    SELECT organization_id, id AS user_id, role, disabled_at FROM users
    WHERE external_subject = $1 AND external_subject <> ''
      AND CASE WHEN $2::uuid IS NULL THEN (SELECT count(*) FROM (SELECT FROM organizations LIMIT 2) AS few) = 1
               ELSE organization_id = $2 END
    """
    row = await tx.fetchrow(sql, subject, organization_id)
    return None if row is None else _principal(row)


async def touch_keys(tx: Transaction, keys: Collection[tuple[UUID, UUID]]) -> None:
    """Note that these keys (organization, id) were used just now; at most once a minute each, over all servers."""
    sql = """
    UPDATE api_keys k SET last_used_at = now()
    FROM unnest($1::uuid[], $2::uuid[]) AS used(organization_id, id)
    WHERE k.organization_id = used.organization_id AND k.id = used.id
      AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '55 seconds')
    """
    await tx.execute(sql, [key[0] for key in keys], [key[1] for key in keys])


def key_of(row: Any) -> ApiKey:
    """A key of a row with the columns KEY."""
    return ApiKey(
        id=row["id"],
        organization_id=row["organization_id"],
        user_id=row["user_id"],
        display_name=row["display_name"],
        prefix=row["prefix"],
        scopes=tuple(row["scopes"]),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        created_at=row["created_at"],
    )


def _principal(row: Any) -> Principal:
    return Principal(row["organization_id"], row["user_id"], Role(row["role"]), row["disabled_at"] is not None)
