"""The queries of changes and cursors. All of them see every organization: system transactions."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.sync import skipped_store
from stationmaster_server.tasks.sync.changed import CHANNEL
from stationmaster_server.tasks.sync.model import About, Cursor, Embedded, Key, Position, Progress

MOST_COUNTED = 10_000
_LAST = 2**63 - 1
# Every transaction before it has ended: what they changed is seen, and no change of theirs is still to come.
_HORIZON = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
# What is in the database moves with it: what people had filled anew is all that can make it another one.
_GENERATION = "coalesce((SELECT generation FROM sync_generations WHERE service_id = $1), 0)::text"
# Another PostgreSQL, a restored one, another database or table: numbers of transactions mean something else there. The
# timeline is the first part of the name of the log that is written; the last checkpoint may still be of the one before.
_SOURCE = f"""concat_ws('/',
    (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
    (SELECT oid FROM pg_database WHERE datname = current_database()), 'task_changes'::regclass::oid, {_GENERATION})"""


class Begin(NamedTuple):
    """What a run has to know: the source's name, the newest settled position, and up to where changes are gone."""

    source: str
    settled: Position
    forgotten: Position


class Filling(NamedTuple):
    """Where the targets of a service are filled, where they are being filled, and where nobody was seen to do so."""

    generation: int
    just_asked: bool
    filled: list[str]
    awaited: list[str]
    away: list[str]


async def begin(tx: Transaction, service_id: str, about: Collection[About], *, in_database: bool) -> Begin:
    """How the source is, for a target in this database or for one beside it."""
    source = _GENERATION if in_database else _SOURCE
    row = await tx.fetchrow(
        f"""SELECT {source} AS source, {_HORIZON} - 1 AS settled, coalesce(f.transaction, 0), coalesce(f.number, 0)
            FROM (SELECT) one LEFT JOIN LATERAL (
                SELECT transaction, number FROM sync_forgotten WHERE about = ANY($2)
                ORDER BY transaction DESC, number DESC LIMIT 1) f ON true""",
        service_id,
        [str(one) for one in about],
    )
    if row is None:
        raise RuntimeError("SELECT without FROM gave no row")
    return Begin(row[0], Position(row[1], _LAST), Position(row[2], row[3]))


async def changes_after(
    tx: Transaction, position: Position, about: Collection[About], limit: int
) -> tuple[list[Key], Position, bool]:
    """The tasks of the next changes, each once, the position that they reach, and whether these were all.

    Changes of transactions after one that is under way wait for its end: it may have changed something before them.
    """
    rows = await tx.fetch(
        f"""SELECT organization_id, task_id, transaction, number FROM unnest($3::text[]) AS wanted(about),
            LATERAL (SELECT * FROM task_changes c WHERE c.about = wanted.about AND (transaction, number) > ($1, $2)
                     AND transaction < {_HORIZON} ORDER BY transaction, number LIMIT $4) found
            ORDER BY transaction, number LIMIT $4""",
        *position,
        [str(one) for one in about],
        limit,
    )
    if not rows:
        return [], position, True
    keys = list(dict.fromkeys(Key(row[0], row[1]) for row in rows))
    return keys, Position(rows[-1][2], rows[-1][3]), len(rows) < limit


async def keys_after(tx: Transaction, key: Key, limit: int) -> list[Key]:
    """The next tasks, by organization and id."""
    rows = await tx.fetch(
        """SELECT organization_id, task_id FROM tasks
           WHERE (organization_id, task_id) > ($1, $2) ORDER BY 1, 2 LIMIT $3""",
        *key,
        limit,
    )
    return [Key(*row) for row in rows]


async def no_tasks(tx: Transaction, keys: Sequence[Key]) -> list[Key]:
    """Those of which there is no task."""
    rows = await tx.fetch(
        """SELECT DISTINCT organization_id, task_id FROM unnest($1::uuid[], $2::text[]) AS k(organization_id, task_id)
           WHERE NOT EXISTS (
               SELECT FROM tasks t WHERE t.organization_id = k.organization_id AND t.task_id = k.task_id)""",
        *_columns(keys),
    )
    return [Key(*row) for row in rows]


async def edges_of(tx: Transaction, keys: Sequence[Key]) -> dict[Key, tuple[tuple[str, str], ...]]:
    """What tasks depend on, in order."""
    rows = await tx.fetch(
        """SELECT d.organization_id, d.task_id, d.depends_on, d.on_failure
           FROM unnest($1::uuid[], $2::text[]) AS k(organization_id, task_id)
           JOIN task_dependencies d USING (organization_id, task_id) ORDER BY 1, 2, 3""",
        *_columns(keys),
    )
    found: dict[Key, tuple[tuple[str, str], ...]] = {}
    for organization_id, task_id, depends_on, on_failure in rows:
        key = Key(organization_id, task_id)
        found[key] = (*found.get(key, ()), (depends_on, on_failure))
    return found


async def vectors_of(tx: Transaction, keys: Sequence[Key]) -> dict[Key, Embedded]:
    """The vectors that tasks have."""
    rows = await tx.fetch(
        """SELECT v.organization_id, v.task_id, v.etag, v.encoder, v.vector::real[]
           FROM unnest($1::uuid[], $2::text[]) AS k(organization_id, task_id)
           JOIN task_vectors v USING (organization_id, task_id)""",
        *_columns(keys),
    )
    return {Key(row[0], row[1]): Embedded(row[2], row[3], struct.pack(f"<{len(row[4])}f", *row[4])) for row in rows}


async def cursor_of(tx: Transaction, service_id: str, place: str) -> Cursor | None:
    """How far a target is; None when it is to be filled from nothing."""
    row = await tx.fetchrow(
        """SELECT source, transaction, number, filling_organization_id, filling_task_id FROM sync_cursors
           WHERE service_id = $1 AND place = $2""",
        service_id,
        place,
    )
    return None if row is None else Cursor(row[0], Position(row[1], row[2]), None if row[3] is None else Key(*row[3:]))


async def put_cursor(tx: Transaction, service_id: str, place: str, about: Collection[About], cursor: Cursor) -> None:
    """Keep how far a target is: no change after it is forgotten."""
    await tx.execute(
        """INSERT INTO sync_cursors (
               service_id, place, about, source, transaction, number, filling_organization_id, filling_task_id)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (service_id, place) DO UPDATE
           SET (about, source, transaction, number, filling_organization_id, filling_task_id, seen_at)
               = ROW ($3, $4, $5, $6, $7, $8, now())""",
        service_id,
        place,
        [str(one) for one in about],
        cursor.source,
        *cursor.position,
        *(cursor.filling or (None, None)),
    )


async def saw(tx: Transaction, service_id: str, place: str) -> None:
    """Note that a target is kept up, though nothing changed."""
    await tx.execute("UPDATE sync_cursors SET seen_at = now() WHERE service_id = $1 AND place = $2", service_id, place)


async def next_generation(tx: Transaction, service_id: str, asked_by: str) -> bool:
    """Have the service's targets filled from nothing, wherever they are; False: that one has asked for it already."""
    tag = await tx.execute(
        """INSERT INTO sync_generations AS g (service_id, generation, asked_by) VALUES ($1, 1, ARRAY[$2])
           ON CONFLICT (service_id) DO UPDATE
           SET (generation, asked_at, asked_by) = ROW (g.generation + 1, now(), $2 || g.asked_by[:99])
           WHERE $2 <> ALL (g.asked_by)""",
        service_id,
        asked_by,
    )
    return tag == "INSERT 0 1"


async def announce(tx: Transaction) -> None:
    """Have every server look at its targets with the commit."""
    await tx.execute(f"NOTIFY {CHANNEL}")


async def filling(tx: Transaction, service_id: str, *, in_database: bool) -> Filling:
    """How far the service's targets are with what was asked for last."""
    row = await tx.fetchrow(
        f"""SELECT g.generation, g.asked_at > now() - interval '1 minute' AS just_asked,
                   coalesce(array_agg(c.place ORDER BY c.place) FILTER (WHERE c.filled), '{{}}'),
                   coalesce(array_agg(c.place ORDER BY c.place) FILTER (WHERE NOT c.filled AND c.seen), '{{}}'),
                   coalesce(array_agg(c.place ORDER BY c.place) FILTER (WHERE NOT c.filled AND NOT c.seen), '{{}}')
            FROM sync_generations g LEFT JOIN (
                SELECT service_id, place, seen_at > now() - interval '1 minute' AS seen,
                       source = {_GENERATION if in_database else _SOURCE} AND filling_task_id IS NULL AS filled
                FROM sync_cursors) c USING (service_id)
            WHERE g.service_id = $1 GROUP BY g.service_id""",
        service_id,
    )
    if row is None:
        raise RuntimeError(f"nobody has asked for a resync of {service_id}")
    return Filling(*row)


async def progress(tx: Transaction) -> dict[str, list[Progress]]:
    """How far every target is that was seen within a day, by the service."""
    rows = await tx.fetch(
        f"""SELECT s.*, w.waiting, coalesce(extract(epoch FROM now() - w.oldest), 0)::float8 AS lag,
                {skipped_store.COUNT.format(service="s.service_id")} AS skipped
            FROM sync_cursors s, LATERAL (
                SELECT least(count(*), {MOST_COUNTED}) AS waiting, min(changed_at) AS oldest
                FROM unnest(s.about) AS wanted(about), LATERAL (
                    SELECT changed_at FROM task_changes c
                    WHERE c.about = wanted.about AND (c.transaction, c.number) > (s.transaction, s.number)
                    ORDER BY c.transaction, c.number LIMIT {MOST_COUNTED}) one) w
            WHERE s.seen_at > now() - interval '1 day' ORDER BY s.service_id, s.place"""
    )
    found: dict[str, list[Progress]] = {}
    for row in rows:
        found.setdefault(row["service_id"], []).append(_progress(row))
    return found


async def forget(tx: Transaction, keep_days: int) -> int:
    """Delete the changes that no target needs any more, and who was not seen for so many days. Tells how many."""
    await tx.execute("DELETE FROM sync_cursors WHERE seen_at < now() - make_interval(days => $1)", keep_days)
    return sum([await _forget(tx, one) for one in About])


async def _forget(tx: Transaction, about: About) -> int:
    rows = await tx.fetch(
        f"""WITH up_to AS (
                SELECT transaction, number FROM sync_cursors WHERE $1 = ANY(about)
                UNION ALL SELECT {_HORIZON} - 1, {_LAST} ORDER BY 1, 2 LIMIT 1
            ), gone AS (
                DELETE FROM task_changes c USING up_to
                WHERE c.about = $1 AND (c.transaction, c.number) <= (up_to.transaction, up_to.number)
                RETURNING c.transaction, c.number
            ), noted AS (
                INSERT INTO sync_forgotten (about, transaction, number)
                SELECT $1, transaction, number FROM gone ORDER BY 2 DESC, 3 DESC LIMIT 1
                ON CONFLICT (about) DO UPDATE
                SET (transaction, number) = ROW (excluded.transaction, excluded.number)
            )
            SELECT count(*) FROM gone""",
        str(about),
    )
    deleted: int = rows[0][0]
    return deleted


def _columns(keys: Sequence[Key]) -> tuple[list[UUID], list[str]]:
    return [key.organization_id for key in keys], [key.task_id for key in keys]


def _progress(row: Any) -> Progress:
    cursor = f"{row['transaction']}:{row['number']}" if row["filling_task_id"] is None else ""
    return Progress(row["place"], cursor, row["waiting"], row["lag"], row["skipped"], row["seen_at"])
