"""Vectors of messages: made in the background, a batch at a time, so that no turn waits for them."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.embedding.each import embed_each
from stationmaster_server.embedding.embedder import Embedder, TextRefused
from stationmaster_server.embedding.encoder import Vector
from stationmaster_server.embedding.pieces import Piece, pieces
from stationmaster_server.errors import Reason, ResourceExhausted
from stationmaster_server.sessions import vector_store
from stationmaster_server.sessions.vector_store import Unembedded, Wanting

_log = structlog.get_logger(__name__)
_AT_ONCE = 16
"""Messages that are embedded, and written, together."""


class MessageEmbedding:
    """What embeds messages that lack vectors, of all organizations."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder

    @property
    def encoder(self) -> str:
        """What makes the vectors."""
        return self._embedder.name

    async def begin_anew(self) -> None:
        """Have messages embedded again whose vectors another encoder made. They stay until they are replaced."""
        more = True
        while more:
            async with self._database.system() as tx:
                more = await vector_store.begin_anew(tx, self.encoder)

    async def embed_rest(self, at_most: int) -> int:
        """Embed messages that lack vectors, the sessions' oldest first; returns how many.

        Stops early while all processes are busy. Raises Unavailable, FailedPrecondition(MODEL_UNAVAILABLE).
        """
        done = 0
        try:
            while done < at_most:
                async with self._database.system(autocommit=True) as tx:
                    sessions = await vector_store.wanting(tx, at_most)
                if not sessions:
                    break
                for session in sessions:
                    done += await self._embed_session(session, at_most - done)
                    if done >= at_most:
                        break
        except ResourceExhausted as error:
            if error.reason is not Reason.SERVER_OVERLOADED:
                raise
        return done

    async def _embed_session(self, session: Wanting, at_most: int) -> int:
        done, after, found = 0, session.after, True
        while found and done < at_most:
            async with self._database.system(autocommit=True) as tx:
                batch = await vector_store.unembedded(tx, session, after, _AT_ONCE)
            found = len(batch) == _AT_ONCE
            # Numbers are given in order and never again; those that are missing were rolled back.
            until = batch[-1].number if found else max(session.last, batch[-1].number if batch else 0)
            await self._embed(session, batch, after, until)
            after, done = until, done + len(batch)
        return done

    async def _embed(self, session: Wanting, batch: Sequence[Unembedded], after: int, until: int) -> None:
        cut: list[tuple[int, int, Piece]] = [
            (message.number, place, piece) for message in batch for place, piece in enumerate(pieces(message.text))
        ]
        found = await embed_each(self._embedder, [piece.text for _, _, piece in cut])
        rows: list[tuple[int, int, Piece, Vector]] = []
        for where, vector in zip(cut, found, strict=True):
            if isinstance(vector, TextRefused):  # found by its words alone
                told = {"session": str(session.session_id), "message": where[0], "error": vector.message}
                _log.warning("a piece of a message is not embedded", **told)
            elif any(vector):
                rows.append((*where, vector))
        async with self._database.system() as tx:
            await vector_store.put(tx, session, self.encoder, rows, after, until)
