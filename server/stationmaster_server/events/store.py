"""The queries of the event log. Every one names the organization, whatever row-level security does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.events.model import Event, Page

if TYPE_CHECKING:
    from asyncpg import Record


class Cursor(NamedTuple):
    """A stream and the last sequence that is known of it."""

    organization_id: UUID
    stream_id: UUID
    sequence: int


class Group(NamedTuple):
    """What one flush writes to one stream under one fence."""

    organization_id: UUID
    stream_id: UUID
    fence: UUID
    kinds: list[str]
    bodies: list[str]


class Written(NamedTuple):
    """Where a group went: after sequence `before`; `at` is None when an earlier try of the flush had written it."""

    before: int
    at: datetime | None


def encode_body(body: dict[str, Any]) -> str:
    """The body as JSON text. Half a surrogate pair, which UTF-8 cannot carry, is kept as an escape."""
    try:
        return to_json(body).decode()
    except ValueError:
        return json.dumps(body, separators=(",", ":"))


async def create_stream(tx: Transaction, organization_id: UUID, stream_id: UUID) -> None:
    """A stream without events."""
    await tx.execute("INSERT INTO streams (organization_id, stream_id) VALUES ($1, $2)", organization_id, stream_id)


def begin_streams(new: str) -> str:
    """CTEs `stream` and `event` for the statement that stores what streams are of: they begin with an event each.

    `new` is a CTE before them with columns stream_id, kind and body (JSON text); $1 is the organization. A stream that
    exists is left as it is. Nobody else knows of those that are new, so all of it is one round trip.
    """
    return f"""stream AS (
    INSERT INTO streams (organization_id, stream_id, last_sequence) SELECT $1, stream_id, 1 FROM {new}
    ON CONFLICT DO NOTHING
), event AS (
    INSERT INTO events (organization_id, stream_id, sequence, created_at, kind, body)
    SELECT $1, n.stream_id, 1, now(), n.kind, n.body::json FROM {new} n
    WHERE NOT EXISTS (SELECT FROM streams s WHERE s.organization_id = $1 AND s.stream_id = n.stream_id)
)"""


async def set_fence(tx: Transaction, organization_id: UUID, stream_id: UUID, fence: UUID | None) -> bool:
    """Let only `fence` write; False when there is no such stream."""
    sql = "UPDATE streams SET fence = $3 WHERE organization_id = $1 AND stream_id = $2"
    return await tx.execute(sql, organization_id, stream_id, fence) == "UPDATE 1"


async def exists(tx: Transaction, organization_id: UUID, stream_id: UUID) -> bool:
    """Whether there is such a stream."""
    sql = "SELECT EXISTS (SELECT FROM streams WHERE organization_id = $1 AND stream_id = $2)"
    return bool(await tx.fetchval(sql, organization_id, stream_id))


_APPEND = """
WITH bumped AS (
    UPDATE streams SET last_sequence = last_sequence + cardinality($4::text[])
    WHERE organization_id = $1 AND stream_id = $2 AND ($3::uuid IS NULL OR fence = $3)
    RETURNING last_sequence - cardinality($4::text[]) AS before, clock_timestamp() AS at
), inserted AS (
    INSERT INTO events (organization_id, stream_id, sequence, created_at, kind, body)
    SELECT $1, $2, bumped.before + new.position, bumped.at, new.kind, new.body::json
    FROM bumped, unnest($4::text[], $5::text[]) WITH ORDINALITY AS new(kind, body, position)
)
SELECT before, at FROM bumped
"""


async def append(
    tx: Transaction, organization_id: UUID, stream_id: UUID, fence: UUID | None, kinds: list[str], bodies: list[str]
) -> Written | None:
    """Write events in the caller's transaction; None: no such stream, or the fence is another."""
    row = await tx.fetchrow(_APPEND, organization_id, stream_id, fence, kinds, bodies)
    return None if row is None else Written(row["before"], row["at"])


# Rows are locked in the order of their ids, as by the flush.
_HAND_OVER = """
WITH new AS (
    SELECT * FROM unnest($2::uuid[], $3::text[], $4::text[]) AS n(stream_id, kind, body)
), locked AS (
    SELECT s.stream_id FROM streams s JOIN new USING (stream_id) WHERE s.organization_id = $1
    ORDER BY s.stream_id FOR UPDATE OF s
), bumped AS (
    UPDATE streams s SET last_sequence = s.last_sequence + 1, fence = $5
    FROM locked l WHERE s.organization_id = $1 AND s.stream_id = l.stream_id
    RETURNING s.stream_id, s.last_sequence AS sequence, clock_timestamp() AS at
), inserted AS (
    INSERT INTO events (organization_id, stream_id, sequence, created_at, kind, body)
    SELECT $1, stream_id, b.sequence, b.at, n.kind, n.body::json FROM bumped b JOIN new n USING (stream_id)
)
SELECT stream_id, sequence, at FROM bumped
"""


async def hand_over(
    tx: Transaction,
    organization_id: UUID,
    stream_ids: Sequence[UUID],
    kinds: Sequence[str],
    bodies: Sequence[str],
    fence: UUID | None,
) -> list[tuple[UUID, int, datetime]]:
    """Write one event to each stream and let only `fence` write from then on; unknown streams are left out."""
    rows = await tx.fetch(_HAND_OVER, organization_id, list(stream_ids), list(kinds), list(bodies), fence)
    return [(row["stream_id"], row["sequence"], row["at"]) for row in rows]


# A row locked by somebody's open transaction is skipped, not waited for: one stream never holds up the others.
# Rows are locked in the order of their ids. Whether the fence holds and whether an earlier try of this very flush
# was committed is decided on the locked row, so on its newest version.
_FLUSH = """
WITH locked AS (
    SELECT s.organization_id, s.stream_id, g.ordinal, g.size,
           s.last_flush IS NOT DISTINCT FROM $5::uuid AS repeated, s.flush_sequence
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[]) WITH ORDINALITY
         AS g(organization_id, stream_id, fence, size, ordinal)
    JOIN streams s ON s.organization_id = g.organization_id AND s.stream_id = g.stream_id AND s.fence = g.fence
    ORDER BY s.stream_id
    FOR UPDATE OF s SKIP LOCKED
), bumped AS (
    UPDATE streams s
    SET last_sequence = s.last_sequence + l.size, last_flush = $5, flush_sequence = s.last_sequence + l.size
    FROM locked l
    WHERE s.organization_id = l.organization_id AND s.stream_id = l.stream_id AND NOT l.repeated
    RETURNING s.organization_id, s.stream_id, l.ordinal, s.last_sequence - l.size AS before, clock_timestamp() AS at
), inserted AS (
    INSERT INTO events (organization_id, stream_id, sequence, created_at, kind, body)
    SELECT b.organization_id, b.stream_id, b.before + e.position, b.at, e.kind, e.body::json
    FROM bumped b JOIN unnest($6::bigint[], $7::int[], $8::text[], $9::text[]) AS e(ordinal, position, kind, body)
      USING (ordinal)
)
SELECT ordinal, before, at FROM bumped
UNION ALL
SELECT ordinal, flush_sequence - size, NULL FROM locked WHERE repeated
UNION ALL
SELECT 0, count(pg_notify($10, payload)), NULL FROM unnest($11::text[]) AS payload
"""


async def flush(
    tx: Transaction, flush_id: UUID, groups: Sequence[Group], channel: str, payloads: list[str]
) -> list[Written | None]:
    """Write all groups and notify, in one statement; None for a group whose stream is locked or has another fence."""
    ordinals, positions, kinds, bodies = _columns(groups)
    rows = await tx.fetch(
        _FLUSH,
        [group.organization_id for group in groups],
        [group.stream_id for group in groups],
        [group.fence for group in groups],
        [len(group.kinds) for group in groups],
        flush_id,
        ordinals,
        positions,
        kinds,
        bodies,
        channel,
        payloads,
    )
    found = {row[0]: Written(row[1], row[2]) for row in rows}
    return [found.get(ordinal) for ordinal in range(1, len(groups) + 1)]


def _columns(groups: Sequence[Group]) -> tuple[list[int], list[int], list[str], list[str]]:
    ordinals: list[int] = []
    positions: list[int] = []
    kinds: list[str] = []
    bodies: list[str] = []
    for ordinal, group in enumerate(groups, 1):
        size = len(group.kinds)
        ordinals.extend([ordinal] * size)
        positions.extend(range(1, size + 1))
        kinds.extend(group.kinds)
        bodies.extend(group.bodies)
    return ordinals, positions, kinds, bodies


async def notify(tx: Transaction, channel: str, payloads: list[str]) -> None:
    """Notifications alone, when nothing else is to be written."""
    await tx.execute("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload", channel, payloads)


_HELD = """
SELECT g.ordinal
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS g(organization_id, stream_id, fence, ordinal)
JOIN streams s ON s.organization_id = g.organization_id AND s.stream_id = g.stream_id AND s.fence = g.fence
"""


async def fences_held(tx: Transaction, groups: Sequence[Group]) -> list[bool]:
    """For each group whether its fence is still the stream's; waits for nobody."""
    rows = await tx.fetch(
        _HELD,
        [group.organization_id for group in groups],
        [group.stream_id for group in groups],
        [group.fence for group in groups],
    )
    held = {row[0] for row in rows}
    return [ordinal in held for ordinal in range(1, len(groups) + 1)]


# The stream's last sequence and its events are of one snapshot. The bound on created_at (with a day for clocks that
# were set back) spares a look into the partitions of the months before the stream was made.
_READ = """
SELECT s.stream_id, s.last_sequence, e.sequence, e.kind, e.body, e.created_at
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS w(organization_id, stream_id, after)
JOIN streams s ON s.organization_id = w.organization_id AND s.stream_id = w.stream_id
LEFT JOIN LATERAL (
    SELECT e.sequence, e.kind, e.body, e.created_at FROM events e
    WHERE e.organization_id = w.organization_id AND e.stream_id = w.stream_id AND e.sequence > w.after
      AND e.created_at >= s.created_at - interval '1 day'
    ORDER BY e.sequence LIMIT $4
) e ON true
ORDER BY s.stream_id, e.sequence
"""


async def read(tx: Transaction, cursors: Sequence[Cursor], limit: int) -> dict[UUID, Page]:
    """The next events after each cursor, at most `limit` of a stream; a stream that does not exist is left out."""
    rows = await tx.fetch(
        _READ,
        [cursor.organization_id for cursor in cursors],
        [cursor.stream_id for cursor in cursors],
        [cursor.sequence for cursor in cursors],
        limit,
    )
    return {stream_id: _page(list(group), limit) for stream_id, group in groupby(rows, lambda row: row["stream_id"])}


def _page(rows: list[Record], limit: int) -> Page:
    events = [
        Event(row["stream_id"], row["sequence"], row["kind"], row["body"], row["created_at"])
        for row in rows
        if row["sequence"] is not None
    ]
    full = len(events) == limit
    return Page(events, events[-1].sequence if full else rows[0]["last_sequence"], full)


async def bodies(
    tx: Transaction, organization_id: UUID, stream_id: UUID, after: int, since: datetime, kind: str
) -> list[dict[str, Any]]:
    """The bodies of the events of one kind after a cursor, in their order; `since`: none of them is older."""
    rows = await tx.fetch(
        """SELECT body FROM events WHERE organization_id = $1 AND stream_id = $2 AND sequence > $3
             AND created_at >= $4::timestamptz - interval '1 day' AND kind = $5 ORDER BY sequence""",
        organization_id,
        stream_id,
        after,
        since,
        kind,
    )
    return [row["body"] for row in rows]


_MOVED = """
SELECT s.stream_id
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS w(organization_id, stream_id, sequence)
JOIN streams s ON s.organization_id = w.organization_id AND s.stream_id = w.stream_id
WHERE s.last_sequence > w.sequence
"""


async def moved(tx: Transaction, cursors: Sequence[Cursor]) -> list[UUID]:
    """Those of the streams that have events after their cursor."""
    rows = await tx.fetch(
        _MOVED,
        [cursor.organization_id for cursor in cursors],
        [cursor.stream_id for cursor in cursors],
        [cursor.sequence for cursor in cursors],
    )
    return [row[0] for row in rows]


_COMPACT = """
DELETE FROM events e USING streams s
WHERE s.organization_id = $1 AND s.stream_id = $2 AND e.organization_id = $1 AND e.stream_id = $2
  AND e.sequence BETWEEN $3 AND $4 AND e.kind = ANY($5::text[])
  AND e.created_at >= s.created_at - interval '1 day'
"""


async def compact(
    tx: Transaction, organization_id: UUID, stream_id: UUID, first: int, last: int, kinds: Sequence[str]
) -> int:
    """Delete the events of these kinds from `first` to `last`; returns how many."""
    tag = await tx.execute(_COMPACT, organization_id, stream_id, first, last, list(kinds))
    return int(tag.rpartition(" ")[2])
