"""The queries of documents that are embedded anew, in system transactions."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.encoder import Vector

Document = tuple[UUID, UUID]
"""Its organization, and its id."""


async def one_of_others(tx: Transaction, encoder: str) -> Document | None:
    """A finished document, of any organization, of another encoder.

    Any of them: one that cannot be embedded keeps no others waiting.
    """
    row = await tx.fetchrow(
        """SELECT organization_id, id FROM documents WHERE ready AND (encoder < $1 OR encoder > $1)
           ORDER BY random() LIMIT 1""",
        encoder,
    )
    return None if row is None else (row["organization_id"], row["id"])


async def pieces_of_others(tx: Transaction, document: Document, encoder: str, limit: int) -> list[tuple[int, str]]:
    """Its next pieces with vectors of other encoders: their numbers, and what is embedded of them."""
    rows = await tx.fetch(
        """SELECT number, context || E'\\n' || text AS text FROM pieces
           WHERE organization_id = $1 AND document_id = $2 AND encoder <> $3 ORDER BY number LIMIT $4""",
        *document,
        encoder,
        limit,
    )
    return [(row["number"], row["text"]) for row in rows]


async def put(
    tx: Transaction, document: Document, encoder: str, renewed: Sequence[tuple[int, Vector]], *, all_done: bool
) -> None:
    """Write the vectors of pieces that are still there; with `all_done` the document is of this encoder."""
    await tx.executemany(
        """UPDATE pieces SET encoder = $4, vector = $5::real[]::vector
           WHERE organization_id = $1 AND document_id = $2 AND number = $3""",
        [(*document, number, encoder, vector) for number, vector in renewed],
    )
    await tx.execute(
        "UPDATE documents SET encoder = $3 WHERE organization_id = $1 AND id = $2",
        *document,
        encoder if all_done else "",
    )
