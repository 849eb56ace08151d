"""The query of accesses: what is asked for, and whether it may be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.credentials.envelope import Sealed
from stationmaster_server.credentials.model import Label, VersionState
from stationmaster_server.db.caller import Role
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction


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
