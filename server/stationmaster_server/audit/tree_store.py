"""The queries of the Merkle trees: placing events, growing the trees, reading nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from stationmaster_server.audit.merkle import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, Frontier
from stationmaster_server.db.transaction import Transaction

CHANNEL = "stationmaster_audit"
"""Tells every server of organizations whose trail has grown: their ids, or `*` for many."""
_LOCK = 0x41554449  # any number of our own
_MOST_NAMED = 200  # ids in one notification; PostgreSQL takes less than 8,000 bytes

# The bytes of an event `e` that its commitment is over; their form is part of the format (docs/formats/audit.md).
BODY = """(
    SELECT to_json(body)::text FROM (SELECT
        e.organization_id AS organization, e.id, (extract(epoch FROM e.created_at) * 1000000)::bigint AS time,
        e.category, e.action, e.outcome, e.actor, e.on_behalf_of, e.api_key, e.method, e.resource, e.reason,
        e.request_id, e.peer, e.details) AS body
)"""
LEAF_LABEL = b"stationmaster audit leaf v1\n"

# Whoever has the lock sees every row that was committed before it, so places follow the order of commits from one batch
# to the next; within a batch they follow the queue's ordinals, which respect cause and effect. What is hashed is what
# is stored.
_PLACE = f"""
WITH taken AS (
    DELETE FROM audit_queue q USING (SELECT organization_id, ordinal FROM audit_queue ORDER BY ordinal LIMIT $1) oldest
    WHERE q.organization_id = oldest.organization_id AND q.ordinal = oldest.ordinal
    RETURNING q.organization_id, q.ordinal, q.event_id, q.created_at
), placed AS (
    INSERT INTO audit_positions (organization_id, sequence, event_id, created_at, commitment)
    SELECT t.organization_id,
           coalesce(h.last_sequence, 0) + row_number() OVER (PARTITION BY t.organization_id ORDER BY t.ordinal),
           t.event_id, t.created_at, b.commitment
    FROM taken t
    CROSS JOIN LATERAL (
        SELECT sha256(e.salt || convert_to({BODY}, 'UTF8')) AS commitment FROM audit_events e
        WHERE e.organization_id = t.organization_id AND e.created_at = t.created_at AND e.id = t.event_id
        LIMIT 1  -- by its key, each: never a pass over all events there are
    ) b
    LEFT JOIN audit_heads h ON h.organization_id = t.organization_id
    RETURNING organization_id, sequence, sha256(
        '\\x00'::bytea || $2 || int8send(sequence) || uuid_send(event_id)
        || int8send((extract(epoch FROM created_at) * 1000000)::bigint) || commitment) AS leaf
)
SELECT organization_id, size, frontier, leaves, queued.taken
FROM (SELECT count(*) AS taken FROM taken) queued LEFT JOIN (
    SELECT p.organization_id, coalesce(h.last_sequence, 0) AS size, coalesce(h.frontier, '') AS frontier,
           string_agg(p.leaf, ''::bytea ORDER BY p.sequence) AS leaves
    FROM placed p LEFT JOIN audit_heads h USING (organization_id)
    GROUP BY p.organization_id, h.last_sequence, h.frontier
) grown ON true
"""
_GROW = """
WITH heads AS (
    INSERT INTO audit_heads (organization_id, last_sequence, frontier)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[])
    ON CONFLICT (organization_id) DO UPDATE SET last_sequence = excluded.last_sequence, frontier = excluded.frontier
), tiles AS (
    INSERT INTO audit_tiles AS t (organization_id, level, number, hashes)
    SELECT * FROM unnest($4::uuid[], $5::integer[], $6::bigint[], $7::bytea[])
    ON CONFLICT (organization_id, level, number) DO UPDATE SET hashes = t.hashes || excluded.hashes
)
SELECT pg_notify($8, $9)
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """What a batch placed of an organization: its tree before, and the hashes of the new leaves."""

    organization_id: UUID
    tree: Frontier
    leaves: bytes

    @property
    def count(self) -> int:
        """How many events that is."""
        return len(self.leaves) // HASH_BYTES


async def lock(tx: Transaction) -> None:
    """Let one server place at a time: another one waits here, and then finds what the first has left."""
    await tx.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def place(tx: Transaction, batch_size: int) -> tuple[int, list[Placed]]:
    """Give the oldest queued events their places; how many were taken, and what each tree is to grow by."""
    rows = await tx.fetch(_PLACE, batch_size, LEAF_LABEL)
    placed = [
        Placed(row["organization_id"], Frontier(row["size"], row["frontier"]), row["leaves"])
        for row in rows
        if row["leaves"] is not None
    ]
    return rows[0]["taken"], placed


async def grow(tx: Transaction, placed: Sequence[Placed]) -> None:
    """Let trees grow by what was placed, and tell every server."""
    tiles: list[tuple[UUID, int, int, bytes]] = []
    for each in placed:
        size = each.tree.size
        for level, hashes in enumerate(each.tree.append(each.leaves)):
            first = size >> TILE_HEIGHT * level
            tiles += [(each.organization_id, level, *part) for part in _by_tile(first, bytes(hashes))]
    ids = [each.organization_id for each in placed]
    payload = " ".join(organization_id.hex for organization_id in ids) if len(ids) <= _MOST_NAMED else "*"
    heads = (ids, [each.tree.size for each in placed], [each.tree.packed for each in placed])
    await tx.execute(_GROW, *heads, *map(list, zip(*tiles, strict=True)), CHANNEL, payload)


def _by_tile(first: int, hashes: bytes) -> Iterator[tuple[int, bytes]]:
    """Hashes of a level, from the `first` on, as what each tile has to be longer by."""
    at = 0
    while at < len(hashes):
        number, offset = divmod(first + at // HASH_BYTES, TILE_WIDTH)
        part = hashes[at : at + (TILE_WIDTH - offset) * HASH_BYTES]
        yield number, part
        at += len(part)


async def tiles(
    tx: Transaction, organization_id: UUID, wanted: Collection[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Tiles by level and number."""
    sql = """
    SELECT level, number, hashes FROM audit_tiles
    WHERE organization_id = $1 AND (level, number) IN (SELECT * FROM unnest($2::integer[], $3::bigint[]))
    """
    rows = await tx.fetch(sql, organization_id, [level for level, _ in wanted], [number for _, number in wanted])
    return {(row["level"], row["number"]): row["hashes"] for row in rows}


async def waiting(tx: Transaction) -> bool:
    """Whether any event waits for its place (a system transaction)."""
    return bool(await tx.fetchval("SELECT EXISTS (SELECT FROM audit_queue)"))
