"""The vectors that a search compares, as a target: what the queue of embeddings left over is embedded here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from stationmaster_server.db.engine import Database
from stationmaster_server.embedding.each import embed_each
from stationmaster_server.embedding.embedder import Embedder, TextRefused
from stationmaster_server.embedding.encoder import Vector
from stationmaster_server.errors import Reason, ResourceExhausted, Unavailable
from stationmaster_server.tasks import search_store
from stationmaster_server.tasks.sync import index_store, skipped_store, store
from stationmaster_server.tasks.sync.model import NOTHING, About, Cursor, Key, TaskState, Text
from stationmaster_server.tasks.sync.refusals import Refusals

_AT_ONCE = 64
"""Texts are embedded, and their vectors kept: a run that is cut short loses no more."""


class VectorIndex:
    """`task_vectors`. Each change of a text is embedded by an item of work; this makes sure that it was."""

    place = "PostgreSQL"
    about = (About.TASK,)

    def __init__(
        self, database: Database, embedder: Embedder, service_id: str, refusals: Refusals | None = None
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._service_id = service_id
        self._refusals = refusals or Refusals()

    async def open(self) -> bool:
        """Always."""
        return True

    async def close(self) -> None:
        """Nothing to let go of."""

    async def cursor(self) -> Cursor | None:
        """As it was written with the vectors."""
        async with self._database.system(autocommit=True) as tx:
            return await store.cursor_of(tx, self._service_id, self.place)

    async def apply(self, states: Sequence[TaskState], cursor: Cursor) -> None:
        """Embed what lacks a vector of its text; vectors of tasks that are deleted went with them."""
        texts = {state.key: state.text for state in states if state.text is not None}
        async with self._database.system(autocommit=True) as tx:
            etags = {key: text.text_etag for key, text in texts.items()}
            lacking = await index_store.lacking(tx, self._service_id, self._embedder.name, etags)
        for start in range(0, len(lacking), _AT_ONCE):
            await self._embed({key: texts[key] for key in lacking[start : start + _AT_ONCE]})
        async with self._database.system(autocommit=True) as tx:
            await store.put_cursor(tx, self._service_id, self.place, self.about, cursor)

    async def _embed(self, texts: Mapping[Key, Text]) -> None:
        vectors = await self._vectors([text.body for text in texts.values()])
        async with self._database.system() as tx:
            for (key, text), found in zip(texts.items(), vectors, strict=True):
                # One that has changed meanwhile has a change to come.
                if isinstance(found, TextRefused):
                    await self._refusals.note(tx, key, text.text_etag, self._embedder.name, found)
                else:
                    await search_store.keep_vector(tx, *key, text.text_etag, self._embedder.name, found)

    async def _vectors(self, texts: Sequence[str]) -> Sequence[Vector | TextRefused]:
        try:
            return await embed_each(self._embedder, texts)
        except ResourceExhausted as error:  # others have the encoder, which is no failure
            raise Unavailable(Reason.SERVER_OVERLOADED, error.message, retry_after=error.retry_after) from error

    async def reset(self, cursor: Cursor) -> None:
        """Have every vector looked at; only those from before somebody asked for a resync are made anew."""
        async with self._database.system(autocommit=True) as tx:
            await store.put_cursor(tx, self._service_id, self.place, self.about, cursor)

    async def differing(self, states: Sequence[TaskState]) -> Sequence[Key]:
        """Those that have no vector of their text as it is, unless it was refused."""
        etags = {state.key: state.text.text_etag for state in states if state.text is not None}
        async with self._database.system(autocommit=True) as tx:
            return await index_store.off_etag(tx, self._service_id, etags)

    async def keys(self, at_once: int) -> AsyncIterator[Sequence[Key]]:
        """Of each vector."""
        keys: list[Key] = [NOTHING]
        while keys:
            async with self._database.system(autocommit=True) as tx:
                keys = await index_store.vectors_after(tx, keys[-1], at_once)
            yield keys

    async def skipped(self) -> Mapping[Key, str]:
        """Texts that the encoder refused."""
        async with self._database.system(autocommit=True) as tx:
            return {key: why for key, (_, why) in (await skipped_store.skipped(tx, self._service_id)).items()}
