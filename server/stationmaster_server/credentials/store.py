"""The queries of credentials. Every one names the organization, whatever row-level security does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from stationmaster_server.credentials.model import Credential, Labels
from stationmaster_server.db.listing import Clause, Field, Listing, Page
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists

_FIELDS = (
    *("credential_id", "uid", "owner_id", "display_name", "description", "category", "tags", "encrypted"),
    *("environment_variable", "expires_at", "current_version", "previous_version", "pending_version", "etag"),
    *("created_at", "updated_at", "deleted_at", "purge_at"),
)
COLUMNS = ", ".join(f"c.{field}" for field in _FIELDS) + ", coalesce(c.expires_at <= now(), false) AS expired"
# A setting is shown with its credential.
_SETTING = """(SELECT v.plain FROM credential_versions v WHERE NOT c.encrypted AND v.organization_id = c.organization_id
               AND v.uid = c.uid AND v.version = c.current_version) AS setting"""

LISTING = Listing(
    {
        "credential_id": Field("c.credential_id", str),
        "display_name": Field("c.display_name", str),
        "category": Field("c.category", str),
        "tags": Field("c.tags", dict),
        "encrypted": Field("c.encrypted", bool),
        "expire_time": Field("c.expires_at", datetime),
        "create_time": Field("c.created_at", datetime),
        "update_time": Field("c.updated_at", datetime),
    },
    key="c.credential_id",
    key_type=str,
    default_order="create_time desc",
    order_fields=["credential_id", "display_name", "category", "encrypted", "create_time", "update_time"],
)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: `principals` are its names in grants; `all`: an administrator, who sees every credential."""

    organization_id: UUID
    user_id: UUID
    principals: tuple[str, ...]
    all: bool


def _visible(first: int) -> str:
    """Whether a viewer sees a credential; its placeholders are user, principals, all."""
    return f"""(${first + 2} OR c.owner_id = ${first} OR EXISTS (
        SELECT FROM credential_grants g WHERE g.organization_id = c.organization_id AND g.uid = c.uid
        AND g.principal = ANY(${first + 1}::text[]) AND (g.expires_at IS NULL OR g.expires_at > now())))"""


async def insert(tx: Transaction, organization_id: UUID, new: Credential) -> Credential:
    """A new credential without versions; its times are the database's. AlreadyExists when the id is taken."""
    sql = f"""
    INSERT INTO credentials AS c (organization_id, credential_id, uid, owner_id, encrypted, display_name, description,
        category, tags, environment_variable, expires_at, etag)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING {COLUMNS}, NULL AS setting
    """
    try:
        row = await tx.fetchrow(
            sql, organization_id, new.credential_id, new.uid, new.owner_id, new.encrypted, *_changeable(new), new.etag
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "credentials_pkey":
            raise
        raise AlreadyExists("Credential", new.name) from None
    return _one(row)


async def get(tx: Transaction, viewer: Viewer, credential_id: str, *, lock: bool = False) -> Credential | None:
    """One credential that the viewer sees; locked, nobody else changes it until this transaction ends."""
    sql = f"""
    SELECT {COLUMNS}, {_SETTING} FROM credentials c
    WHERE c.organization_id = $1 AND c.credential_id = $2 AND {_visible(3)} {"FOR NO KEY UPDATE OF c" if lock else ""}
    """
    row = await tx.fetchrow(
        sql, viewer.organization_id, credential_id, viewer.user_id, list(viewer.principals), viewer.all
    )
    return None if row is None else _credential(row)


async def list_credentials(tx: Transaction, viewer: Viewer, clause: Clause, *, deleted: bool) -> Page[Credential]:
    """A page of what the viewer sees; the clause's placeholders start at 6."""
    sql = f"""
    SELECT {COLUMNS}, {_SETTING}, {clause.cursor_sql} FROM credentials c
    WHERE c.organization_id = $1 AND {_visible(2)} AND ($5 OR c.deleted_at IS NULL) AND {clause.where_sql}
    ORDER BY {clause.order_sql}
    """
    rows = await tx.fetch(
        sql,
        viewer.organization_id,
        viewer.user_id,
        list(viewer.principals),
        viewer.all,
        deleted,
        *clause.args,
    )
    return clause.page(rows, _credential)


async def update(tx: Transaction, organization_id: UUID, credential: Credential) -> Credential:
    """Write what can be changed of a credential."""
    sql = f"""
    UPDATE credentials c
    SET display_name = $3, description = $4, category = $5, tags = $6, environment_variable = $7, expires_at = $8,
        etag = $9, updated_at = now()
    WHERE organization_id = $1 AND credential_id = $2 RETURNING {COLUMNS}, {_SETTING}
    """
    return _one(
        await tx.fetchrow(sql, organization_id, credential.credential_id, *_changeable(credential), credential.etag)
    )


async def set_deleted(
    tx: Transaction, organization_id: UUID, credential_id: str, etag: str, keep: timedelta | None
) -> Credential:
    """Mark it deleted, to be purged after `keep`; None: take that back."""
    sql = f"""
    UPDATE credentials c
    SET deleted_at = CASE WHEN $4::interval IS NULL THEN NULL ELSE now() END, purge_at = now() + $4::interval,
        etag = $3, updated_at = now()
    WHERE organization_id = $1 AND credential_id = $2 RETURNING {COLUMNS}, {_SETTING}
    """
    return _one(await tx.fetchrow(sql, organization_id, credential_id, etag, keep))


async def set_labels(tx: Transaction, organization_id: UUID, uid: UUID, labels: Labels, etag: str) -> Credential:
    """Move the labels, all in one step."""
    sql = f"""
    UPDATE credentials c
    SET current_version = $3, previous_version = $4, pending_version = $5, etag = $6, updated_at = now()
    WHERE organization_id = $1 AND uid = $2 RETURNING {COLUMNS}, {_SETTING}
    """
    return _one(await tx.fetchrow(sql, organization_id, uid, labels.current, labels.previous, labels.pending, etag))


async def count(tx: Transaction, organization_id: UUID) -> int:
    """How many an organization has that are not deleted; others that create one wait for this transaction's end."""
    await tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('credentials' || $1::uuid::text, 0))", organization_id
    )
    sql = "SELECT count(*) FROM credentials WHERE organization_id = $1 AND deleted_at IS NULL"
    return int(await tx.fetchval(sql, organization_id))


def _changeable(credential: Credential) -> tuple[Any, ...]:
    return (
        credential.display_name,
        credential.description,
        credential.category,
        list(credential.tags),
        credential.environment_variable,
        credential.expires_at,
    )


def _one(row: Record | None) -> Credential:
    if row is None:
        raise RuntimeError("the statement gave no row")
    return _credential(row)


def _credential(row: Record) -> Credential:
    return Credential(
        credential_id=row["credential_id"],
        uid=row["uid"],
        owner_id=row["owner_id"],
        display_name=row["display_name"],
        description=row["description"],
        category=row["category"],
        tags=tuple(row["tags"]),
        encrypted=row["encrypted"],
        environment_variable=row["environment_variable"],
        expires_at=row["expires_at"],
        labels=Labels(row["current_version"], row["previous_version"], row["pending_version"]),
        setting=row["setting"],
        etag=row["etag"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        deleted_at=row["deleted_at"],
        purge_at=row["purge_at"],
        expired=row["expired"],
    )
