"""The queries of servers and of how the installation is, all in system transactions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.maintenance.model import Server


async def seen(
    tx: Transaction,
    server_id: UUID,
    name: str,
    version: str,
    encoder: str,
    resources: Mapping[str, float],
    encryption_keys: Collection[str],
) -> bool:
    """A server says that it is there, what it uses, and which encryption keys it has.

    Returns whether it was not known: it is new, or what it did has become part of the totals.
    """
    new = await tx.fetchval(
        """INSERT INTO servers (server_id, name, version, encoder, resources, encryption_keys)
           VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT (server_id) DO UPDATE
           SET resources = excluded.resources, encryption_keys = excluded.encryption_keys, seen_at = now()
           RETURNING xmax = 0""",
        server_id,
        name,
        version,
        encoder,
        dict(resources),
        sorted(encryption_keys),
    )
    return bool(new)


async def servers(tx: Transaction, silent_for: timedelta) -> tuple[Server, ...]:
    """Those that said something within this time, the oldest first."""
    rows = await tx.fetch(
        """SELECT name, version, started_at, seen_at, resources, encoder FROM servers
           WHERE seen_at > now() - $1::interval ORDER BY started_at, name""",
        silent_for,
    )
    return tuple(Server(*row) for row in rows)


async def encoders(tx: Transaction, silent_for: timedelta) -> frozenset[str]:
    """What makes vectors on servers that said something within this time."""
    rows = await tx.fetch(
        "SELECT DISTINCT encoder FROM servers WHERE seen_at > now() - $1::interval AND encoder <> ''", silent_for
    )
    return frozenset(row["encoder"] for row in rows)


async def lacking(tx: Transaction, key_id: str, silent_for: timedelta, but: UUID) -> list[str]:
    """The names of other servers that said something within this time, and have encryption keys but not this one."""
    rows = await tx.fetch(
        """SELECT name FROM servers
           WHERE seen_at > now() - $2::interval AND server_id <> $3 AND encryption_keys <> '{}'
             AND $1 <> ALL (encryption_keys)
           ORDER BY name""",
        key_id,
        silent_for,
        but,
    )
    return [row["name"] for row in rows]


class Counts(NamedTuple):
    """What there is in the database."""

    sessions: dict[str, int]
    work: dict[str, int]
    oldest_due: timedelta
    database_bytes: int
    connections: int
    now: datetime


async def counts(tx: Transaction) -> Counts:
    """Count sessions and work of all organizations."""
    sessions = await tx.fetch("SELECT state, count(*) FROM sessions GROUP BY 1")
    work = await tx.fetch(  # each half by an index of its own: what ended well is not read
        """SELECT state, count(*) FROM work_items
           WHERE state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED') GROUP BY 1
           UNION ALL SELECT state, count(*) FROM work_items WHERE state = 'DEAD' GROUP BY 1"""
    )
    row = await tx.fetchrow(
        """SELECT (SELECT coalesce(now() - min(run_at), '0') FROM work_items
                   WHERE state = 'QUEUED' AND run_at <= now()),
               pg_database_size(current_database()),
               (SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database()), now()"""
    )
    if row is None:
        raise RuntimeError("SELECT gave no row")
    return Counts({r[0]: r[1] for r in sessions}, {r[0]: r[1] for r in work}, *row)
