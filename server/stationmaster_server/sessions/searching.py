"""The search through messages, by words and by meaning."""

from __future__ import annotations

from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.embedding.embedder import Embedder
from stationmaster_server.embedding.ranking import Mode, Ranking, fused
from stationmaster_server.identity.model import owner_scope
from stationmaster_server.sessions import meaning_store, store
from stationmaster_server.sessions.meaning_store import Key, Near, Scope
from stationmaster_server.sessions.model import SearchHit
from stationmaster_server.sessions.search_store import search_messages


class MessageSearch:
    """Messages are seen as their sessions are."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder

    async def search(
        self, caller: Caller, session_id: UUID | None, query: str, mode: Mode, page: PageRequest
    ) -> Page[SearchHit]:
        """A page of hits, the best first, of one session or of all that the caller sees.

        Raises NotFound, InvalidArgument(PAGE_TOKEN_INVALID); by meaning as `Embedder.embed` does.
        """
        scope = Scope(caller.tenant.organization_id, owner_scope(caller), session_id)
        query = query.replace("\0", " ")
        async with self._database.tenant(caller.tenant, read=True) as tx:
            if session_id is not None:
                await store.require_session(tx, scope.organization_id, session_id, scope.owner)
            if mode is Mode.TEXT:
                return await search_messages(tx, scope.organization_id, scope.owner, session_id, query, page)
        skip = page.skipped()
        (vector,) = await self._embedder.embed([query])
        near = Near(vector, self._embedder.name, self._embedder.unrelated)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            ranking: Ranking[Key] = await meaning_store.by_meaning(tx, scope, near)
            if mode is Mode.HYBRID:
                ranking = fused([ranking, await meaning_store.by_words(tx, scope, query)])
            shown = ranking[skip : skip + page.size]
            found = await meaning_store.hits(tx, scope.organization_id, shown, query, near)
        there = [(place, found[key]) for place, (key, _) in enumerate(shown, skip + 1) if key in found]
        end = skip + len(shown)
        more = (end,) if len(ranking) > end else None
        return Page([hit for _, hit in there], more, [(place,) for place, _ in there])
