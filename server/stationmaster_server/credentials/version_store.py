"""The queries of versions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from stationmaster_server.credentials.envelope import Sealed
from stationmaster_server.credentials.model import Credential, Labels, Trial, Version, VersionState
from stationmaster_server.db.listing import Clause, Field, Listing, Page
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Reason, Unavailable

_COLUMNS = (
    "v.version, v.state, v.plain, v.format, v.expires_at, v.grace_ends_at, v.trial, v.key_id, v.creator_id,"
    " v.created_at, v.destroyed_at"
)

LISTING = Listing(
    {
        "version": Field("v.version", int),
        "state": Field("v.state", VersionState),
        "create_time": Field("v.created_at", datetime),
    },
    key="v.version",
    key_type=int,
    default_order="version desc",
)


async def get(tx: Transaction, organization_id: UUID, of: Credential, version: int) -> Version | None:
    """One version of a credential whose row is locked, where it is to be changed."""
    sql = f"""SELECT {_COLUMNS} FROM credential_versions v
              WHERE v.organization_id = $1 AND v.uid = $2 AND v.version = $3"""
    row = await tx.fetchrow(sql, organization_id, of.uid, version)
    return None if row is None else _version(row, of)


async def list_versions(tx: Transaction, organization_id: UUID, of: Credential, clause: Clause) -> Page[Version]:
    """A page of versions; the clause's placeholders start at 3."""
    sql = f"""
    SELECT {_COLUMNS}, {clause.cursor_sql} FROM credential_versions v
    WHERE v.organization_id = $1 AND v.uid = $2 AND {clause.where_sql} ORDER BY {clause.order_sql}
    """
    rows = await tx.fetch(sql, organization_id, of.uid, *clause.args)
    return clause.page(rows, lambda row: _version(row, of))


async def count_live(tx: Transaction, organization_id: UUID, uid: UUID) -> int:
    """How many versions are not destroyed."""
    sql = "SELECT count(*) FROM credential_versions WHERE organization_id = $1 AND uid = $2 AND state <> 'DESTROYED'"
    return int(await tx.fetchval(sql, organization_id, uid))


async def next_version(tx: Transaction, organization_id: UUID, uid: UUID) -> int:
    """The number of the next version."""
    sql = """UPDATE credentials SET last_version = last_version + 1 WHERE organization_id = $1 AND uid = $2
             RETURNING last_version"""
    return int(await tx.fetchval(sql, organization_id, uid))


async def insert(
    tx: Transaction,
    organization_id: UUID,
    uid: UUID,
    version: int,
    content: Sealed | Any,
    *,
    creator_id: UUID,
    expires_at: object,
) -> None:
    """A new version: a sealed secret, or a setting. Unavailable when its key was retired meanwhile."""
    sealed = content if isinstance(content, Sealed) else None
    sql = """
    INSERT INTO credential_versions (organization_id, uid, version, state, format, ciphertext, wrapped_key, key_id,
        plain, creator_id, expires_at)
    VALUES ($1, $2, $3, 'ENABLED', $4, $5, $6, $7, $8, $9, $10)
    """
    try:
        await tx.execute(
            sql,
            organization_id,
            uid,
            version,
            sealed.format if sealed else 0,
            sealed.ciphertext if sealed else None,
            sealed.wrapped_key if sealed else None,
            sealed.key_id if sealed else None,
            None if sealed else content,
            creator_id,
            expires_at,
        )
    except asyncpg.ForeignKeyViolationError as error:
        if error.constraint_name != "credential_versions_key_id_fkey":
            raise
        text = "the encryption key was changed at this moment: try again"
        raise Unavailable(Reason.ENCRYPTION_KEY_UNAVAILABLE, text) from None


async def set_state(tx: Transaction, organization_id: UUID, uid: UUID, version: int, state: VersionState) -> None:
    """Enable or disable a version."""
    sql = "UPDATE credential_versions SET state = $4 WHERE organization_id = $1 AND uid = $2 AND version = $3"
    await tx.execute(sql, organization_id, uid, version, state)


async def destroy(tx: Transaction, organization_id: UUID, uid: UUID, version: int) -> None:
    """Erase a version's key and value."""
    sql = """
    UPDATE credential_versions
    SET state = 'DESTROYED', ciphertext = NULL, wrapped_key = NULL, key_id = NULL, plain = NULL, destroyed_at = now()
    WHERE organization_id = $1 AND uid = $2 AND version = $3
    """
    await tx.execute(sql, organization_id, uid, version)


async def set_trial(tx: Transaction, organization_id: UUID, uid: UUID, version: int, trial: Trial) -> None:
    """Note how the trial of a version went."""
    sql = "UPDATE credential_versions SET trial = $4 WHERE organization_id = $1 AND uid = $2 AND version = $3"
    await tx.execute(sql, organization_id, uid, version, trial)


async def set_grace(
    tx: Transaction, organization_id: UUID, uid: UUID, *, current: int | None, replaced: int | None, grace: timedelta
) -> None:
    """The version that is current again has no end of grace; the one that it replaced has one."""
    sql = """
    UPDATE credential_versions SET grace_ends_at = CASE WHEN version = $4 THEN now() + $5::interval END
    WHERE organization_id = $1 AND uid = $2 AND version IN ($3, $4)
    """
    await tx.execute(sql, organization_id, uid, current, replaced, grace)


async def current_content(tx: Transaction, organization_id: UUID, uid: UUID, version: int) -> Sealed | None:
    """The sealed value of a version."""
    sql = """SELECT ciphertext, wrapped_key, key_id, format FROM credential_versions
             WHERE organization_id = $1 AND uid = $2 AND version = $3 AND key_id IS NOT NULL"""
    row = await tx.fetchrow(sql, organization_id, uid, version)
    return None if row is None else Sealed(row["ciphertext"], row["wrapped_key"], row["key_id"], row["format"])


def _version(row: Record, of: Credential) -> Version:
    labels: Labels = of.labels
    return Version(
        credential_id=of.credential_id,
        version=row["version"],
        state=VersionState(row["state"]),
        label=labels.of(row["version"]),
        creator_id=row["creator_id"],
        created_at=row["created_at"],
        setting=row["plain"],
        is_setting=not of.encrypted and row["destroyed_at"] is None,
        expires_at=row["expires_at"],
        grace_ends_at=row["grace_ends_at"],
        trial=Trial(row["trial"]),
        key_id=row["key_id"] or "",
        destroyed_at=row["destroyed_at"],
    )
