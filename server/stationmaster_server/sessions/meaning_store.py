"""The queries of the search through messages by meaning: rankings of bounded length, and what they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.encoder import Vector
from stationmaster_server.embedding.ranking import MOST_RANKED, Ranking
from stationmaster_server.sessions.model import SearchHit
from stationmaster_server.sessions.search_store import HEADLINE
from stationmaster_server.sessions.store_messages import COLUMNS, to_message

Key = tuple[UUID, int]
"""A message: its session, and its number."""

FEW_PIECES = 20_000
"""So many are compared one by one: nothing is missed, however many others' pieces the index holds."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which messages: of one session, or of all that `owner` (None: everybody's) sees and are not archived."""

    organization_id: UUID
    owner: UUID | None
    session_id: UUID | None


@dataclass(frozen=True, slots=True)
class Near:
    """A query's vector, what made it, and the similarity that is too little."""

    vector: Vector
    encoder: str
    unrelated: float


# A text in which the encoder found nothing is near nothing: its distance is not a number, which is greater than any.
_RELATED = "score > $6 AND score <= 1.01"
_SEEN = """m.organization_id = $1 AND ($2::uuid IS NULL OR m.user_id = $2) AND ($3::uuid IS NULL OR m.session_id = $3)
       AND m.encoder = $5
       AND ($3::uuid IS NOT NULL OR EXISTS (
            SELECT FROM sessions s
             WHERE s.organization_id = $1 AND s.id = m.session_id AND s.state <> 'ARCHIVED'))"""
# Of several pieces of a message the nearest counts.
_BEST = f"""
SELECT session_id, number, score FROM (
    SELECT DISTINCT ON (session_id, number) session_id, number, score FROM near ORDER BY session_id, number, score DESC
) AS best
WHERE {_RELATED} ORDER BY score DESC, session_id DESC, number DESC LIMIT $7
"""
ONE_BY_ONE = f"""
WITH near AS (
    SELECT m.session_id, m.number, 1 - (m.vector <=> $4::real[]::vector) AS score FROM message_vectors m WHERE {_SEEN}
)
{_BEST}
"""
BY_INDEX = f"""
WITH near AS MATERIALIZED (
    SELECT m.session_id, m.number, 1 - (m.vector <=> $4::real[]::vector) AS score FROM message_vectors m WHERE {_SEEN}
     ORDER BY m.vector <=> $4::real[]::vector LIMIT $7
)
{_BEST}
"""


async def by_meaning(tx: Transaction, scope: Scope, near: Near) -> Ranking[Key]:
    """Messages with a piece that is near: few pieces are compared, of many the index tells."""
    sql = ONE_BY_ONE if scope.session_id or await _are_few(tx, scope) else BY_INDEX
    args = (scope.organization_id, scope.owner, scope.session_id, near.vector, near.encoder, near.unrelated)
    rows = await tx.fetch(sql, *args, MOST_RANKED)
    return [((row["session_id"], row["number"]), row["score"]) for row in rows]


async def _are_few(tx: Transaction, scope: Scope) -> bool:
    few: bool = await tx.fetchval(
        """SELECT count(*) <= $3 FROM (
               SELECT FROM message_vectors WHERE organization_id = $1 AND ($2::uuid IS NULL OR user_id = $2)
               LIMIT $3 + 1) AS first""",
        scope.organization_id,
        scope.owner,
        FEW_PIECES,
    )
    return few


async def by_words(tx: Transaction, scope: Scope, query: str) -> Ranking[Key]:
    """Messages whose words match."""
    rows = await tx.fetch(
        """SELECT m.session_id, m.number, ts_rank(m.search, wanted)::float8 AS score
           FROM websearch_to_tsquery('simple', $4) AS wanted,
                messages m JOIN sessions s ON s.organization_id = m.organization_id AND s.id = m.session_id
           WHERE m.organization_id = $1 AND s.organization_id = $1
             AND ($2::uuid IS NULL OR s.user_id = $2) AND ($3::uuid IS NULL OR m.session_id = $3)
             AND ($3::uuid IS NOT NULL OR s.state <> 'ARCHIVED') AND m.search @@ wanted
           ORDER BY score DESC, session_id DESC, number DESC LIMIT $5""",
        scope.organization_id,
        scope.owner,
        scope.session_id,
        query,
        MOST_RANKED,
    )
    return [((row["session_id"], row["number"]), row["score"]) for row in rows]


# The text of a hit is its piece that is nearest, unless its words match.
_HITS = f"""
SELECT {", ".join(f"m.{name.strip()}" for name in COLUMNS.split(","))}, wanted.score,
       ts_headline('simple', CASE WHEN m.search @@ query OR best.length IS NULL THEN left(m.text, 200000)
                                  ELSE substr(m.text, best.start_offset + 1, best.length) END, query, {HEADLINE})
           AS snippet
  FROM websearch_to_tsquery('simple', $5) AS query,
       unnest($2::uuid[], $3::int[], $4::float8[]) WITH ORDINALITY AS wanted (session_id, number, score, place)
       JOIN messages m ON m.organization_id = $1 AND m.session_id = wanted.session_id AND m.number = wanted.number
       LEFT JOIN LATERAL (
           SELECT v.start_offset, v.length FROM message_vectors v
            WHERE v.organization_id = $1 AND v.session_id = m.session_id AND v.number = m.number AND v.encoder = $7
            ORDER BY v.vector <=> $6::real[]::vector, v.piece LIMIT 1
       ) AS best ON true
 ORDER BY wanted.place
"""


async def hits(
    tx: Transaction, organization_id: UUID, ranking: Ranking[Key], query: str, near: Near
) -> dict[Key, SearchHit]:
    """What is still there of a ranking, with the place in its text that matches."""
    keys: Sequence[Key] = [key for key, _ in ranking]
    rows = await tx.fetch(
        _HITS,
        organization_id,
        [session_id for session_id, _ in keys],
        [number for _, number in keys],
        [score for _, score in ranking],
        query,
        near.vector,
        near.encoder,
    )
    return {
        (row["session_id"], row["number"]): SearchHit(to_message(row), row["snippet"], row["score"]) for row in rows
    }
