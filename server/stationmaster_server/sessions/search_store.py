"""The search through messages: the best match first, by PostgreSQL's text search without a language."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.sessions.model import SearchHit
from stationmaster_server.sessions.store_messages import COLUMNS, to_message

HEADLINE = "'StartSel=«, StopSel=», MaxFragments=2, MaxWords=24, MinWords=8, FragmentDelimiter=\" … \"'"
# Headlines are made for the page alone: each reads the whole text.
_SEARCH = f"""
WITH wanted AS (SELECT websearch_to_tsquery('simple', $4) AS query),
hits AS (
    SELECT m.*, ts_rank(m.search, wanted.query)::float8 AS score
      FROM wanted, messages m JOIN sessions s ON s.organization_id = m.organization_id AND s.id = m.session_id
     WHERE m.organization_id = $1 AND s.organization_id = $1
       AND ($2::uuid IS NULL OR s.user_id = $2) AND ($3::uuid IS NULL OR m.session_id = $3)
       AND ($3::uuid IS NOT NULL OR s.state <> 'ARCHIVED')
       AND m.search @@ wanted.query
), page AS (
    SELECT * FROM hits
     WHERE $5::float8 IS NULL OR (score, session_id, number) < ($5, $6::uuid, $7::int)
     ORDER BY score DESC, session_id DESC, number DESC
     LIMIT $8
)
SELECT {COLUMNS}, score,
       ts_headline('simple', left(text, 200000), wanted.query, {HEADLINE}) AS snippet
  FROM page, wanted
 ORDER BY score DESC, session_id DESC, number DESC
"""


async def search_messages(
    tx: Transaction, organization_id: UUID, owner: UUID | None, session_id: UUID | None, query: str, page: PageRequest
) -> Page[SearchHit]:
    """A page of the messages that match, of one session or of all that `owner` sees and are not archived."""
    after = _cursor(page)
    rows = await tx.fetch(_SEARCH, organization_id, owner, session_id, query.replace("\0", " "), *after, page.size + 1)
    hits = [SearchHit(to_message(row), row["snippet"], row["score"]) for row in rows[: page.size]]
    cursors = [(hit.score, hit.message.session_id, hit.message.number) for hit in hits]
    return Page(hits, cursors[-1] if len(rows) > page.size else None, cursors)


def _cursor(page: PageRequest) -> tuple[Any, Any, Any]:
    match page.after:
        case None:
            return None, None, None
        case (float() | int() as score, UUID() as session_id, int() as number):
            return float(score), session_id, number
    raise InvalidArgument.field("page_token", "is of another list", Reason.PAGE_TOKEN_INVALID)
