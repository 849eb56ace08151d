"""The queries of versions, and of one access."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.credentials.envelope import Sealed
from stationmaster_server.credentials.model import Credential, Label, Labels, Trial, Version, VersionState
from stationmaster_server.db.caller import Role
from stationmaster_server.db.listing import Clause, Page
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction

_COLUMNS = (
    "v.version, v.state, v.plain, v.format, v.expires_at, v.grace_ends_at, v.trial, v.key_id, v.creator_id,"
    " v.created_at, v.destroyed_at"
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an access asks for: a version by its number, or by a label."""

    credential_id: str
    version: int
    label: Label
    purpose: str
    principals: tuple[str, ...] = field(default=())
    user_id: UUID | None = None
    """Whose right it is."""


@dataclass(frozen=True, slots=True)
class Found:
    """All that one access needs to know, from one statement."""

    uid: UUID
    owner_id: UUID
    encrypted: bool
    environment_variable: str
    deleted: bool
    expired: bool
    version: int | None
    """The version that is asked for; None: the label points to none."""
    state: VersionState | None
    """None: there is no such version."""
    version_expired: bool
    grace_over: bool
    sealed: Sealed | None
    plain: Any = field(repr=False)
    granted: bool
    """Whether any grant counts now."""
    fits: bool
    """Whether one of them allows the purpose."""
    has_versions: bool
    expires_at: datetime | None
    role: Role | None
    """Of the user whose right it is; None: disabled, or gone."""


# The hot path: what is asked for, and whether it may be, for all who ask at once.
_ACCESS = """
SELECT a.place, c.uid, c.owner_id, c.encrypted, c.environment_variable, c.deleted_at IS NOT NULL AS deleted,
       coalesce(c.expires_at <= now(), false) AS expired, w.version AS wanted, c.last_version > 0 AS has_versions,
       v.state, coalesce(v.expires_at <= now(), false) AS version_expired,
       coalesce(v.grace_ends_at <= now(), false) AS grace_over,
       least(c.expires_at, v.expires_at, v.grace_ends_at) AS ends_at,
       v.format, v.ciphertext, v.wrapped_key, v.key_id, v.plain, g.granted, g.fits, u.role
FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::uuid[])
     WITH ORDINALITY AS a(credential_id, version, label, principals, purpose, user_id, place)
JOIN credentials c ON c.organization_id = $1 AND c.credential_id = a.credential_id
CROSS JOIN LATERAL (SELECT CASE WHEN a.version > 0 THEN a.version
                                WHEN a.label = 'PREVIOUS' THEN c.previous_version
                                WHEN a.label = 'PENDING' THEN c.pending_version
                                ELSE c.current_version END AS version) w
LEFT JOIN credential_versions v ON v.organization_id = $1 AND v.uid = c.uid AND v.version = w.version
LEFT JOIN users u ON u.organization_id = $1 AND u.id = a.user_id AND u.disabled_at IS NULL
CROSS JOIN LATERAL (SELECT count(*) > 0 AS granted,
                           coalesce(bool_or(purposes = '{}' OR a.purpose = ANY(purposes)), false) AS fits
                    FROM credential_grants g WHERE g.organization_id = $1 AND g.uid = c.uid
                    AND g.principal = ANY(string_to_array(a.principals, ' '))
                    AND (g.expires_at IS NULL OR g.expires_at > now())) g
"""


async def find(tx: Transaction, organization_id: UUID, wanted: Sequence[Wanted]) -> list[Found | None]:
    """What each access asks for, and whether its principals have a grant; None: there is no such credential."""
    rows = await tx.fetch(
        _ACCESS,
        organization_id,
        [one.credential_id for one in wanted],
        [one.version for one in wanted],
        [one.label for one in wanted],
        [" ".join(one.principals) for one in wanted],
        [one.purpose for one in wanted],
        [one.user_id for one in wanted],
    )
    found: list[Found | None] = [None] * len(wanted)
    for row in rows:
        found[row["place"] - 1] = _found(row)
    return found


def _found(row: Record) -> Found:
    state = row["state"]
    sealed = None
    if row["ciphertext"] is not None and row["wrapped_key"] is not None and row["key_id"] is not None:
        sealed = Sealed(row["ciphertext"], row["wrapped_key"], row["key_id"], row["format"])
    return Found(
        row["uid"],
        row["owner_id"],
        row["encrypted"],
        row["environment_variable"],
        row["deleted"],
        row["expired"],
        row["wanted"],
        None if state is None else VersionState(state),
        row["version_expired"],
        row["grace_over"],
        sealed,
        row["plain"],
        row["granted"],
        row["fits"],
        row["has_versions"],
        row["ends_at"],
        None if row["role"] is None else Role(row["role"]),
    )


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
