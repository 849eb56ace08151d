"""The queries of documents and their pieces."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.process.model import Document, Piece

_ONE = "organization_id = $1 AND id = $2"
_SAME = f"{_ONE} AND sha256 = $3 AND encoder = $4 AND NOT ready"


async def begin(tx: Transaction, organization_id: UUID, new: Document) -> tuple[int, bool]:
    """Begin a document, or go on with it: how many pieces are there, and whether those are all.

    One that was begun with another text or encoder begins anew.
    """
    await tx.execute(
        """INSERT INTO documents (organization_id, id, user_id, execution_id, source, title, media_type, size_bytes,
               sha256, encoder)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (organization_id, id) DO NOTHING""",
        organization_id,
        new.id,
        new.user_id,
        new.execution_id,
        new.source,
        new.title,
        new.media_type,
        new.size_bytes,
        new.sha256,
        new.encoder,
    )
    row = await tx.fetchrow(
        f"SELECT pieces, ready, sha256, encoder FROM documents WHERE {_ONE} FOR UPDATE", organization_id, new.id
    )
    if row is None:
        return 0, False  # it was deleted this moment: the first batch will find that out
    if row["ready"] or (row["sha256"], row["encoder"]) == (new.sha256, new.encoder):
        return row["pieces"], row["ready"]
    await tx.execute("DELETE FROM pieces WHERE organization_id = $1 AND document_id = $2", organization_id, new.id)
    await tx.execute(
        f"UPDATE documents SET pieces = 0, sha256 = $3, encoder = $4, size_bytes = $5, title = $6 WHERE {_ONE}",
        organization_id,
        new.id,
        new.sha256,
        new.encoder,
        new.size_bytes,
        new.title,
    )
    return 0, False


async def stored(tx: Transaction, organization_id: UUID, document_id: UUID) -> tuple[int, bool]:
    """How many pieces of a document are there, whatever its text was, and whether those are all."""
    row = await tx.fetchrow(f"SELECT pieces, ready FROM documents WHERE {_ONE}", organization_id, document_id)
    return (0, False) if row is None else (row["pieces"], row["ready"])


async def lock(tx: Transaction, organization_id: UUID, document: Document) -> int | None:
    """How many pieces an unfinished document has, which nobody else changes now; None: it is not what it was."""
    there: int | None = await tx.fetchval(
        f"SELECT pieces FROM documents WHERE {_SAME} FOR UPDATE",
        organization_id,
        document.id,
        document.sha256,
        document.encoder,
    )
    return there


async def append(
    tx: Transaction, organization_id: UUID, document: Document, pieces: Sequence[Piece], vectors: Sequence[list[float]]
) -> None:
    """The next pieces of a document that is locked."""
    await tx.executemany(
        """INSERT INTO pieces (organization_id, document_id, number, user_id, text, headings, context, start_offset,
               encoder, vector)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::real[]::vector)""",
        [
            (
                organization_id,
                document.id,
                piece.number,
                document.user_id,
                piece.text,
                list(piece.headings),
                context(document, piece),
                piece.start,
                document.encoder,
                vector,
            )
            for piece, vector in zip(pieces, vectors, strict=True)
        ],
    )
    await tx.execute(
        f"UPDATE documents SET pieces = pieces + $3, updated_at = now() WHERE {_ONE}",
        organization_id,
        document.id,
        len(pieces),
    )


def context(document: Document, piece: Piece) -> str:
    """What a piece is about besides its own text: the title and the headings above it."""
    return " > ".join(dict.fromkeys(part for part in (document.title, *piece.headings) if part))


async def finish(tx: Transaction, organization_id: UUID, document: Document, *, replace: bool) -> list[UUID]:
    """All pieces of a locked document are there: it is found from now on, and not those that it replaces."""
    await tx.execute(
        f"UPDATE documents SET ready = true, updated_at = now() WHERE {_ONE}", organization_id, document.id
    )
    return await delete(tx, organization_id, document.user_id, [document.source], but=document.id) if replace else []


async def lock_source(tx: Transaction, organization_id: UUID, user_id: UUID, source: str) -> None:
    """Of documents of one source, one is finished at a time: the last one stays."""
    await tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 20261126))", f"{organization_id} {user_id} {source}"
    )


async def delete(
    tx: Transaction, organization_id: UUID, user_id: UUID, sources: Sequence[str], *, but: UUID | None = None
) -> list[UUID]:
    """Delete a user's documents of these sources that are found; returns which."""
    rows = await tx.fetch(
        """DELETE FROM documents
           WHERE organization_id = $1 AND user_id = $2 AND source = ANY($3) AND ready AND id IS DISTINCT FROM $4
           RETURNING id""",
        organization_id,
        user_id,
        list(sources),
        but,
    )
    return [row["id"] for row in rows]


async def documents(tx: Transaction, organization_id: UUID, ids: Sequence[UUID]) -> list[Document]:
    """Those of the documents that are there, in the order of their ids."""
    rows = await tx.fetch(
        """SELECT id, user_id, execution_id, source, title, media_type, size_bytes, sha256, encoder, pieces, ready,
                  created_at
           FROM documents WHERE organization_id = $1 AND id = ANY($2::uuid[])
           ORDER BY array_position($2::uuid[], id)""",
        organization_id,
        list(ids),
    )
    return [Document(**row) for row in map(dict, rows)]


async def count_pieces(tx: Transaction, organization_id: UUID) -> int:
    """How many pieces an organization has."""
    sql = "SELECT coalesce(sum(pieces), 0)::bigint FROM documents WHERE organization_id = $1"
    return int(await tx.fetchval(sql, organization_id))


async def forget_unfinished(tx: Transaction, age: timedelta, limit: int) -> int:
    """Delete documents, of all organizations, that nobody has gone on with for so long; returns how many."""
    rows = await tx.fetch(
        """DELETE FROM documents WHERE (organization_id, id) IN (
               SELECT organization_id, id FROM documents
               WHERE NOT ready AND updated_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING id""",
        age,
        limit,
    )
    return len(rows)
