"""The queries of expiry and of purging: all in system transactions, over all organizations."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from stationmaster_server.db.transaction import Transaction


class Ending(NamedTuple):
    """A credential, or a version of it, that expires or has expired."""

    organization_id: UUID
    owner_id: UUID
    credential_id: str
    version: int | None
    expires_at: datetime

    @property
    def name(self) -> str:
        """Its name."""
        name = f"credentials/{self.credential_id}"
        return name if self.version is None else f"{name}/versions/{self.version}"


async def announce(tx: Transaction, before: timedelta, limit: int) -> list[Ending]:
    """What expires within `before` and was not announced yet; it counts as announced now."""
    return await _mark(tx, "announced_for", "expires_at > now() AND expires_at <= now() + $1::interval", before, limit)


async def expire(tx: Transaction, limit: int) -> list[Ending]:
    """What has expired and was not told of yet; it counts as told now."""
    return await _mark(tx, "expired_for", "expires_at <= now() - $1::interval", timedelta(), limit)


async def _mark(tx: Transaction, column: str, due: str, span: timedelta, limit: int) -> list[Ending]:
    credentials = f"""
    UPDATE credentials c SET {column} = c.expires_at FROM (
        SELECT organization_id, uid FROM credentials
        WHERE {due} AND deleted_at IS NULL AND {column} IS DISTINCT FROM expires_at
        ORDER BY expires_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
    ) due WHERE c.organization_id = due.organization_id AND c.uid = due.uid
    RETURNING c.organization_id, c.owner_id, c.credential_id, NULL::bigint, c.expires_at
    """
    # Of versions only those that somebody may read: of others nobody misses anything.
    versions = f"""
    UPDATE credential_versions v SET {column} = v.expires_at FROM (
        SELECT v.organization_id, v.uid, v.version, c.owner_id, c.credential_id
        FROM credential_versions v JOIN credentials c ON c.organization_id = v.organization_id AND c.uid = v.uid
        WHERE {due.replace("expires_at", "v.expires_at")} AND v.state = 'ENABLED' AND c.deleted_at IS NULL
        AND v.version IN (c.current_version, c.pending_version) AND v.{column} IS DISTINCT FROM v.expires_at
        ORDER BY v.expires_at LIMIT $2 FOR NO KEY UPDATE OF v SKIP LOCKED
    ) due WHERE v.organization_id = due.organization_id AND v.uid = due.uid AND v.version = due.version
    RETURNING v.organization_id, due.owner_id, due.credential_id, v.version, v.expires_at
    """
    found = [*await tx.fetch(credentials, span, limit), *await tx.fetch(versions, span, limit)]
    return [Ending(*row) for row in found]


class Purged(NamedTuple):
    """A credential that is gone for good."""

    organization_id: UUID
    owner_id: UUID
    credential_id: str


async def purge(tx: Transaction, limit: int) -> list[Purged]:
    """Remove what was deleted long enough ago, with its versions and grants."""
    sql = """
    DELETE FROM credentials c USING (
        SELECT organization_id, uid FROM credentials WHERE purge_at <= now() ORDER BY purge_at LIMIT $1
        FOR UPDATE SKIP LOCKED
    ) due WHERE c.organization_id = due.organization_id AND c.uid = due.uid
    RETURNING c.organization_id, c.owner_id, c.credential_id
    """
    return [Purged(*row) for row in await tx.fetch(sql, limit)]
