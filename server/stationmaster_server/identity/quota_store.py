"""The queries of quotas and of what is used of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.identity.model import NOTHING, Amounts, Quota, Usage

_LIMITS = (
    "max_concurrent_sessions",
    "max_calls_per_hour",
    "max_cost_micros_per_day",
    "max_storage_bytes",
    "max_users",
    "max_tokens_per_day",
    "max_tool_calls_per_day",
    "max_running_time_per_day",
)
_QUOTA = f"subject_id, {', '.join(_LIMITS)}, revision, updated_at"
_BY_DAY = ("tokens", "cost_micros", "tool_calls", "running_time")
# The locks of subjects; any number of our own.
_LOCK_SEED = 0x51554F54


@dataclass(frozen=True, slots=True)
class Used:
    """What is used of the counted quotas, reserved included."""

    sessions: int = 0
    today: Amounts = NOTHING
    storage_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes that are stored, and those set aside for uploads."""

    used: int = 0
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Calls that a server may admit without asking again, until the hour ends."""

    calls: int
    hour_ends_in: timedelta


async def get_quotas(tx: Transaction, organization_id: UUID, subjects: Sequence[UUID]) -> dict[UUID, Quota]:
    """The quotas of those subjects that have one."""
    sql = f"SELECT {_QUOTA} FROM quotas WHERE organization_id = $1 AND subject_id = ANY($2::uuid[])"
    return {row["subject_id"]: _quota(row) for row in await tx.fetch(sql, organization_id, list(subjects))}


async def lock_quota(tx: Transaction, organization_id: UUID, subject_id: UUID) -> Quota:
    """The quota of a subject, perhaps one without limits, that nobody else sets until this transaction ends."""
    await lock_subjects(tx, [subject_id])
    return (await get_quotas(tx, organization_id, [subject_id])).get(subject_id, Quota(subject_id))


async def put_quota(tx: Transaction, organization_id: UUID, quota: Quota) -> Quota:
    """Write a quota, with a new revision."""
    sql = f"""
    INSERT INTO quotas AS q (organization_id, subject_id, {", ".join(_LIMITS)})
    VALUES ($1, $2, {", ".join(f"${number}" for number in range(3, 3 + len(_LIMITS)))})
    ON CONFLICT (organization_id, subject_id) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in _LIMITS)}, revision = q.revision + 1, updated_at = now()
    RETURNING {_QUOTA}
    """
    limits = [getattr(quota, name) for name in _LIMITS]
    return _quota(await tx.fetchrow(sql, organization_id, quota.subject_id, *limits))


async def lock_subjects(tx: Transaction, subjects: Sequence[UUID], *, shared: bool = False) -> None:
    """Let one transaction at a time (or, `shared`, none that is not) use what these subjects have left.

    A user stands before its organization. The locks are held until the transaction ends or `unlock_subjects`.
    """
    lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    await tx.execute("SAVEPOINT quota; SELECT " + ", ".join(f"{lock}({_lock_key(subject)})" for subject in subjects))


async def unlock_subjects(tx: Transaction) -> None:
    """Undo `lock_subjects`, when nothing was written since."""
    await tx.execute("ROLLBACK TO SAVEPOINT quota")


def _lock_key(subject: UUID) -> int:
    """A number of 64 bits with sign, of the random half of the id."""
    return ((subject.int ^ _LOCK_SEED) & (1 << 64) - 1) - (1 << 63)


async def most_connections(tx: Transaction) -> int:
    """How many transactions there can be at a time."""
    return int(await tx.fetchval("SELECT current_setting('max_connections')::int"))


# The day by the clock and not by the transaction: one that began before midnight may have waited for a lock since.
_TODAY = "(clock_timestamp() AT TIME ZONE 'UTC')::date"


async def today(tx: Transaction) -> date:
    """The day (UTC) that it is now."""
    day: date = await tx.fetchval(f"SELECT {_TODAY}")
    return day


async def get_used(
    tx: Transaction, organization_id: UUID, subjects: Sequence[UUID], day: date | None = None
) -> dict[UUID, Used]:
    """What these subjects use, on a day or today."""
    sums = ", ".join(f"sum({each}) FILTER (WHERE day = coalesce($3, {_TODAY})) AS {each}" for each in _BY_DAY)
    sql = f"""
    SELECT subject_id, sum(sessions)::bigint AS sessions, {sums},
           sum(storage_reserved + storage_used)::bigint AS storage_bytes
    FROM quota_usage WHERE organization_id = $1 AND subject_id = ANY($2::uuid[]) GROUP BY subject_id
    """
    used = dict.fromkeys(subjects, Used())
    for row in await tx.fetch(sql, organization_id, list(subjects), day):
        used[row["subject_id"]] = Used(row["sessions"], _amounts(row), row["storage_bytes"])
    return used


async def get_stored(tx: Transaction, organization_id: UUID, subject_id: UUID) -> Stored:
    """What a subject stores."""
    row: Any = await tx.fetchrow(
        """SELECT coalesce(sum(storage_used), 0)::bigint AS used, coalesce(sum(storage_reserved), 0)::bigint AS reserved
           FROM quota_usage WHERE organization_id = $1 AND subject_id = $2""",
        organization_id,
        subject_id,
    )
    return Stored(row["used"], row["reserved"])


_ADD_STORED = f"""
INSERT INTO quota_usage AS u (organization_id, subject_id, day, shard, storage_used, storage_reserved)
SELECT $1, subject_id, {_TODAY}, pg_backend_pid() % 16, $3, $4
FROM unnest($2::uuid[]) WITH ORDINALITY AS subjects(subject_id, position) ORDER BY position
ON CONFLICT (organization_id, subject_id, shard) DO UPDATE
SET storage_used = u.storage_used + excluded.storage_used,
    storage_reserved = u.storage_reserved + excluded.storage_reserved
"""


async def add_stored(tx: Transaction, organization_id: UUID, subjects: Sequence[UUID], more: Stored) -> None:
    """Add to what subjects store; a user stands before its organization."""
    await tx.execute(_ADD_STORED, organization_id, list(subjects), more.used, more.reserved)


def adding_sql(source: str) -> str:
    """The statement that adds to counters what a query finds.

    It selects organization_id, subject_id, day, sessions and the amounts in their order, a user before its
    organization.
    """
    # Every connection adds to a shard of its own (nearly: sixteen for all), so adding waits for nobody. A row's day
    # never goes back: what belongs to an earlier one is gone with it.
    added = ", ".join(
        f"{each} = CASE WHEN u.day >= excluded.day THEN u.{each} ELSE '0' END"
        f" + CASE WHEN u.day <= excluded.day THEN excluded.{each} ELSE '0' END"
        for each in _BY_DAY
    )
    return f"""
    INSERT INTO quota_usage AS u (organization_id, subject_id, day, sessions, {", ".join(_BY_DAY)}, shard)
    SELECT added.*, pg_backend_pid() % 16 FROM ({source}) AS added
    ON CONFLICT (organization_id, subject_id, shard) DO UPDATE
    SET sessions = u.sessions + excluded.sessions, day = greatest(u.day, excluded.day), {added}
    """


_ADD = adding_sql(
    f"""SELECT $1::uuid, subject_id, coalesce($3::date, {_TODAY}), $4::bigint,
               $5::bigint, $6::bigint, $7::bigint, $8::interval
        FROM unnest($2::uuid[]) WITH ORDINALITY AS subjects(subject_id, position) ORDER BY position"""
)


async def add(
    tx: Transaction,
    organization_id: UUID,
    subjects: Sequence[UUID],
    amounts: Amounts,
    *,
    sessions: int = 0,
    day: date | None = None,
) -> None:
    """Add to the counters of a day, or of today."""
    await tx.execute(
        _ADD,
        organization_id,
        list(subjects),
        day,
        sessions,
        amounts.tokens,
        amounts.cost_micros,
        amounts.tool_calls,
        amounts.running_time,
    )


# A twentieth of what is left, so that servers hold back less as the limit comes near. The row's hour never goes back.
_TAKE = """
INSERT INTO quota_calls AS c (organization_id, subject_id, hour, taken, last_block)
SELECT $1, $2, date_trunc('hour', now()), block, block
FROM (SELECT greatest(1, least($4::bigint, $3::bigint / 20)) AS block) AS first
ON CONFLICT (organization_id, subject_id) DO UPDATE
SET hour = greatest(c.hour, excluded.hour),
    taken = CASE WHEN c.hour < excluded.hour THEN excluded.taken
                 ELSE c.taken + greatest(1, least($4, ($3 - c.taken) / 20)) END,
    last_block = CASE WHEN c.hour < excluded.hour THEN excluded.last_block
                      ELSE greatest(1, least($4, ($3 - c.taken) / 20)) END
WHERE c.hour < excluded.hour OR c.taken < $3
RETURNING c.last_block, extract(epoch FROM c.hour + interval '1 hour' - clock_timestamp())::float8 AS ends_in
"""


_HOUR_LEFT = """
SELECT extract(epoch FROM date_trunc('hour', clock_timestamp()) + interval '1 hour' - clock_timestamp())::float8
"""


async def take_calls(tx: Transaction, organization_id: UUID, subject_id: UUID, *, limit: int, largest: int) -> Block:
    """Take some calls of this hour; none when `limit` are taken."""
    row = await tx.fetchrow(_TAKE, organization_id, subject_id, limit, largest) if limit > 0 else None
    if row is None:
        return Block(0, timedelta(seconds=await tx.fetchval(_HOUR_LEFT)))
    return Block(row["last_block"], timedelta(seconds=row["ends_in"]))


async def get_usage(tx: Transaction, organization_id: UUID, subject_id: UUID) -> Usage:
    """All that a subject uses; its users too if it is the organization."""
    sql = """
    SELECT coalesce((SELECT taken FROM quota_calls WHERE organization_id = $1 AND subject_id = $2
                     AND hour = date_trunc('hour', now())), 0) AS calls,
           (SELECT count(*) FROM users WHERE organization_id = $1 AND $1 = $2 AND disabled_at IS NULL) AS users
    """
    row: Any = await tx.fetchrow(sql, organization_id, subject_id)
    used = (await get_used(tx, organization_id, [subject_id]))[subject_id]
    return Usage(subject_id, used.sessions, row["calls"], row["users"], used.today, used.storage_bytes)


def _quota(row: Any) -> Quota:
    return Quota(**dict(row.items()))


def _amounts(row: Any) -> Amounts:
    """The sums over a day's rows; of no row, nothing."""
    tokens, cost_micros, tool_calls = (int(row[each] or 0) for each in _BY_DAY[:3])
    return Amounts(tokens, cost_micros, tool_calls, row["running_time"] or timedelta(0))
