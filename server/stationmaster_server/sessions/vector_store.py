"""The queries of messages' vectors, in system transactions: which messages lack them, and writing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.encoder import Vector
from stationmaster_server.embedding.pieces import Piece

_ANEW_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Wanting:
    """A session with messages, of numbers greater than `after` and up to `last`, that lack vectors."""

    organization_id: UUID
    session_id: UUID
    user_id: UUID
    after: int
    last: int


@dataclass(frozen=True, slots=True)
class Unembedded:
    """A message that lacks vectors."""

    number: int
    text: str


Row = tuple[int, int, Piece, Vector]
"""The message's number, the piece's number in it, the piece, its vector."""


async def wanting(tx: Transaction, limit: int) -> list[Wanting]:
    """Some sessions, of all organizations, whose messages lack vectors.

    Any of them: one whose messages cannot be embedded keeps no others waiting.
    """
    rows = await tx.fetch(
        """SELECT organization_id, id, user_id, embedded_message, last_message FROM sessions
           WHERE last_message > embedded_message ORDER BY random() LIMIT $1""",
        limit,
    )
    return [Wanting(*row) for row in rows]


async def unembedded(tx: Transaction, session: Wanting, after: int, limit: int) -> list[Unembedded]:
    """The session's next messages, those without text among them, which have no vectors."""
    rows = await tx.fetch(
        """SELECT number, left(text, 100000) FROM messages
           WHERE organization_id = $1 AND session_id = $2 AND number > $3 ORDER BY number LIMIT $4""",
        session.organization_id,
        session.session_id,
        after,
        limit,
    )
    return [Unembedded(*row) for row in rows]


async def put(tx: Transaction, session: Wanting, encoder: str, rows: Sequence[Row], after: int, until: int) -> None:
    """Write vectors of messages that are still there, and that those up to `until` have theirs if those to `after` had.

    The session is then of this encoder, or of several when only some of its vectors are.
    """
    await tx.executemany(
        """INSERT INTO message_vectors (organization_id, session_id, number, piece, user_id, start_offset, length,
               encoder, vector)
           SELECT organization_id, session_id, number, $4, $5, $6, $7, $8, $9::real[]::vector FROM messages
           WHERE organization_id = $1 AND session_id = $2 AND number = $3 FOR KEY SHARE
           ON CONFLICT (organization_id, session_id, number, piece) DO UPDATE
           SET start_offset = EXCLUDED.start_offset, length = EXCLUDED.length, encoder = EXCLUDED.encoder,
               vector = EXCLUDED.vector""",
        [
            (
                session.organization_id,
                session.session_id,
                number,
                place,
                session.user_id,
                piece.start,
                len(piece.text),
                encoder,
                vector,
            )
            for number, place, piece, vector in rows
        ],
    )
    await tx.execute(
        """UPDATE sessions
           SET embedded_by = CASE WHEN embedded_message = 0 OR embedded_by = $4 THEN $4 ELSE '' END,
               embedded_message = $3
           WHERE organization_id = $1 AND id = $2 AND embedded_message = $5""",
        session.organization_id,
        session.session_id,
        until,
        encoder,
        after,
    )


async def begin_anew(tx: Transaction, encoder: str) -> bool:
    """Take some sessions, of all organizations, with vectors of other encoders for such without; False: no more."""
    rows = await tx.fetch(
        """UPDATE sessions SET embedded_message = 0, embedded_by = ''
           WHERE (organization_id, id) IN (
               SELECT organization_id, id FROM sessions WHERE embedded_message > 0 AND embedded_by <> $1
               LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING id""",
        encoder,
        _ANEW_AT_ONCE,
    )
    return len(rows) == _ANEW_AT_ONCE
