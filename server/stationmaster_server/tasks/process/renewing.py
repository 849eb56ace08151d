"""Documents, embedded anew: when the encoder is another than the one that made their vectors."""

from __future__ import annotations

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.embedding.each import embed_each
from stationmaster_server.embedding.embedder import Embedder, TextRefused
from stationmaster_server.embedding.encoder import DIMENSIONS, Vector
from stationmaster_server.errors import Reason, ResourceExhausted
from stationmaster_server.tasks.process import renewing_store
from stationmaster_server.tasks.process.renewing_store import Document

_log = structlog.get_logger(__name__)
_AT_ONCE = 32
"""Pieces that are embedded, and written, together."""


class Renewing:
    """A document is found by meaning piece by piece as they are renewed, and by its words all the while."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder

    @property
    def encoder(self) -> str:
        """What makes the vectors."""
        return self._embedder.name

    async def renew(self, at_most: int) -> int:
        """Embed pieces, of documents of all organizations, that another encoder embedded; returns how many.

        Stops early while all processes are busy. Raises Unavailable, FailedPrecondition(MODEL_UNAVAILABLE).
        """
        done = 0
        try:
            while done < at_most and (count := await self._renew_some()) is not None:
                done += count
        except ResourceExhausted as error:
            if error.reason is not Reason.SERVER_OVERLOADED:
                raise
        return done

    async def _renew_some(self) -> int | None:
        """Some pieces of one document; None when no document is left."""
        async with self._database.system(autocommit=True) as tx:
            document = await renewing_store.one_of_others(tx, self.encoder)
            if document is None:
                return None
            texts = await renewing_store.pieces_of_others(tx, document, self.encoder, _AT_ONCE)
        vectors = await embed_each(self._embedder, [text for _, text in texts])
        renewed = [(number, _kept(document, number, found)) for (number, _), found in zip(texts, vectors, strict=True)]
        async with self._database.system() as tx:
            await renewing_store.put(tx, document, self.encoder, renewed, all_done=len(texts) < _AT_ONCE)
        return len(texts)


def _kept(document: Document, number: int, found: Vector | TextRefused) -> Vector:
    """Of a piece that the encoder refuses a vector that is near nothing: it is found by its words."""
    if not isinstance(found, TextRefused):
        return found
    told = {"document": str(document[1]), "piece": number, "error": found.message}
    _log.warning("a piece of a document is found by its words alone", **told)
    return [0.0] * DIMENSIONS
