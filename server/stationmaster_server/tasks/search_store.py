"""The queries of the search through tasks and documents. Each ranking is of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.ranking import Ranking
from stationmaster_server.tasks.model import Task
from stationmaster_server.tasks.search_model import Key, Passage, Target
from stationmaster_server.tasks.store import READABLE

FEW_PIECES = 20_000
"""So many are compared one by one: nothing is missed, however many others' pieces the index holds."""
_HEADLINE = "'StartSel=**, StopSel=**, MaxFragments=2, MaxWords=24, MinWords=8'"
# A text in which the encoder found nothing is near nothing: its distance is not a number, which is greater than any.
_RELATED = "score > $5 AND score <= 1.01"
_OWN = "p.organization_id = $1 AND ($2::uuid IS NULL OR p.user_id = $2) AND p.encoder = $4"
_READY = """EXISTS (SELECT FROM documents d
                    WHERE d.organization_id = p.organization_id AND d.id = p.document_id AND d.ready)"""


async def tasks_by_words(tx: Transaction, organization_id: UUID, query: str, limit: int) -> Ranking[Key]:
    """Tasks whose words match."""
    rows = await tx.fetch(
        """SELECT task_id, ts_rank(words, wanted)::float8 AS score
           FROM tasks, websearch_to_tsquery('simple', $2) AS wanted
           WHERE organization_id = $1 AND words @@ wanted ORDER BY score DESC, task_id LIMIT $3""",
        organization_id,
        query,
        limit,
    )
    return [(_task_key(row["task_id"]), row["score"]) for row in rows]


async def tasks_by_meaning(
    tx: Transaction, organization_id: UUID, vector: list[float], encoder: str, least: float, limit: int
) -> Ranking[Key]:
    """Tasks whose vectors are near."""
    rows = await tx.fetch(
        """SELECT task_id, score
           FROM (SELECT task_id, 1 - (vector <=> $2::real[]::vector) AS score FROM task_vectors
                 WHERE organization_id = $1 AND encoder = $3) AS near
           WHERE score > $4 AND score <= 1.01 ORDER BY score DESC, task_id LIMIT $5""",
        organization_id,
        vector,
        encoder,
        least,
        limit,
    )
    return [(_task_key(row["task_id"]), row["score"]) for row in rows]


async def pieces_by_words(
    tx: Transaction, organization_id: UUID, owner: UUID | None, query: str, limit: int
) -> Ranking[Key]:
    """Pieces, of all documents or a user's, whose words match."""
    rows = await tx.fetch(
        f"""SELECT p.document_id, p.number, ts_rank(p.words, wanted)::float8 AS score
            FROM pieces p, websearch_to_tsquery('simple', $3) AS wanted
            WHERE p.organization_id = $1 AND ($2::uuid IS NULL OR p.user_id = $2) AND p.words @@ wanted AND {_READY}
            ORDER BY score DESC, p.document_id, p.number LIMIT $4""",
        organization_id,
        owner,
        query,
        limit,
    )
    return [(_piece_key(row["document_id"], row["number"]), row["score"]) for row in rows]


async def pieces_by_meaning(
    tx: Transaction,
    organization_id: UUID,
    owner: UUID | None,
    vector: list[float],
    encoder: str,
    least: float,
    limit: int,
) -> Ranking[Key]:
    """Pieces, of all documents or a user's, whose vectors are near: few are compared, of many the index tells."""
    sql = ONE_BY_ONE if await _are_few(tx, organization_id, owner) else BY_INDEX
    rows = await tx.fetch(sql, organization_id, owner, vector, encoder, least, limit)
    return [(_piece_key(row["document_id"], row["number"]), row["score"]) for row in rows]


ONE_BY_ONE = f"""
SELECT document_id, number, score
FROM (SELECT p.document_id, p.number, 1 - (p.vector <=> $3::real[]::vector) AS score
      FROM pieces p WHERE {_OWN} AND {_READY}) AS near
WHERE {_RELATED} ORDER BY score DESC, document_id, number LIMIT $6
"""
BY_INDEX = f"""
WITH near AS MATERIALIZED (
    SELECT p.document_id, p.number, 1 - (p.vector <=> $3::real[]::vector) AS score
    FROM pieces p WHERE {_OWN} AND {_READY} ORDER BY p.vector <=> $3::real[]::vector LIMIT $6
)
SELECT document_id, number, score FROM near WHERE {_RELATED} ORDER BY score DESC, document_id, number
"""


async def _are_few(tx: Transaction, organization_id: UUID, owner: UUID | None) -> bool:
    few: bool = await tx.fetchval(
        """SELECT coalesce(sum(pieces), 0) <= $3 FROM documents
           WHERE organization_id = $1 AND ($2::uuid IS NULL OR user_id = $2)""",
        organization_id,
        owner,
        FEW_PIECES,
    )
    return few


async def task_snippets(tx: Transaction, organization_id: UUID, task_ids: Sequence[str], query: str) -> dict[str, str]:
    """A piece of each task's text, by its id."""
    rows = await tx.fetch(
        f"""SELECT task_id,
                   ts_headline('simple', {READABLE}, websearch_to_tsquery('simple', $3), {_HEADLINE}) AS snippet
            FROM tasks WHERE organization_id = $1 AND task_id = ANY($2)""",
        organization_id,
        list(task_ids),
        query,
    )
    return {row["task_id"]: row["snippet"] for row in rows}


async def passages(
    tx: Transaction, organization_id: UUID, keys: Sequence[tuple[UUID, int]], query: str
) -> dict[Key, tuple[Passage, str]]:
    """Passages with a piece of their text, by their keys; those that are gone are missing."""
    rows = await tx.fetch(
        f"""SELECT d.id, p.number, d.user_id, d.source, d.title, p.headings, p.text, p.start_offset, d.execution_id,
                   d.created_at,
                   ts_headline('simple', p.text, websearch_to_tsquery('simple', $4), {_HEADLINE}) AS snippet
            FROM unnest($2::uuid[], $3::int[]) AS wanted (document_id, number)
            JOIN pieces p ON p.organization_id = $1 AND p.document_id = wanted.document_id AND p.number = wanted.number
            JOIN documents d ON d.organization_id = $1 AND d.id = wanted.document_id""",
        organization_id,
        [document_id for document_id, _ in keys],
        [number for _, number in keys],
        query,
    )
    return {
        _piece_key(row["id"], row["number"]): (
            Passage(
                document_id=row["id"],
                number=row["number"],
                user_id=row["user_id"],
                source=row["source"],
                title=row["title"],
                headings=tuple(row["headings"]),
                text=row["text"],
                start=row["start_offset"],
                execution_id=row["execution_id"],
                created_at=row["created_at"],
            ),
            row["snippet"],
        )
        for row in rows
    }


async def set_vector(tx: Transaction, organization_id: UUID, task: Task, encoder: str, vector: list[float]) -> bool:
    """Keep the vector of a task unless its text has changed since it was read; tells whether it was kept."""
    return await keep_vector(tx, organization_id, task.task_id, task.text_etag, encoder, vector)


async def keep_vector(
    tx: Transaction, organization_id: UUID, task_id: str, text_etag: str, encoder: str, vector: list[float]
) -> bool:
    """Keep the vector of a task's text as of `text_etag`, unless it is another by now; tells whether it was kept."""
    tag = await tx.execute(
        """INSERT INTO task_vectors (organization_id, task_id, etag, encoder, vector)
           SELECT organization_id, task_id, text_etag, $4, $5::real[]::vector FROM tasks
           WHERE organization_id = $1 AND task_id = $2 AND text_etag = $3 FOR SHARE
           ON CONFLICT (organization_id, task_id)
           DO UPDATE SET etag = EXCLUDED.etag, encoder = EXCLUDED.encoder, vector = EXCLUDED.vector,
                         created_at = now()""",
        organization_id,
        task_id,
        text_etag,
        encoder,
        vector,
    )
    if tag != "INSERT 0 1":
        return False
    skipped = "DELETE FROM sync_skipped WHERE organization_id = $1 AND task_id = $2"
    await tx.execute(skipped, organization_id, task_id)
    return True


async def lacking_vectors(tx: Transaction, encoder: str, limit: int, *, others: bool) -> list[tuple[UUID, str]]:
    """Some tasks, of all organizations, without a vector of their newest text; with `others`, of this encoder.

    Any of them: some that cannot be embedded keep no others waiting. Not those whose text the encoder refused.
    """
    rows = await tx.fetch(
        """SELECT t.organization_id, t.task_id FROM tasks t LEFT JOIN task_vectors v USING (organization_id, task_id)
           WHERE (v.encoder IS NULL OR v.etag <> t.text_etag OR ($3 AND v.encoder <> $1))
             AND NOT EXISTS (
                 SELECT FROM sync_skipped s
                 WHERE s.organization_id = t.organization_id AND s.task_id = t.task_id AND s.etag = t.text_etag
                   AND s.method = $1)
           ORDER BY random() LIMIT $2""",
        encoder,
        limit,
        others,
    )
    return [(row["organization_id"], row["task_id"]) for row in rows]


def _task_key(task_id: str) -> Key:
    return Target.TASKS.value, task_id, 0


def _piece_key(document_id: UUID, number: int) -> Key:
    return Target.DOCUMENTS.value, document_id, number
