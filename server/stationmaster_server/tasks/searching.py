"""The search through tasks and documents, by words and by meaning."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.ranking import MOST_RANKED, Mode, Ranking, fused, merged
from stationmaster_server.identity.model import owner_scope
from stationmaster_server.tasks import search_store, store
from stationmaster_server.tasks.model import Task
from stationmaster_server.tasks.search_model import Hit, Key, Passage, Target
from stationmaster_server.tasks.services import TaskServices


class Search:
    """Tasks are the organization's; documents are seen as executions are: one's own, and all by administrators."""

    def __init__(self, services: TaskServices) -> None:
        self._services = services

    async def search(
        self, caller: Caller, query: str, mode: Mode, targets: Collection[Target], page: PageRequest
    ) -> Page[Hit]:
        """A page of hits, the best first. Raises InvalidArgument(PAGE_TOKEN_INVALID), ResourceExhausted."""
        query = query.replace("\0", " ")
        if mode is Mode.TEXT and set(targets) == {Target.TASKS}:
            return await self._tasks_by_words(caller, query, page)
        skip = page.skipped()
        rankings: list[Ranking[Key]] = []
        if mode is not Mode.TEXT:
            rankings.append(await self._by_meaning(caller, query, targets))
        if mode is not Mode.MEANING:
            rankings.append(await self._by_words(caller, query, targets))
        ranking = fused(rankings) if mode is Mode.HYBRID else rankings[0]
        shown = ranking[skip : skip + page.size]
        hits = await self._hits(caller, query, shown)
        cursors = [(skip + at,) for at, _ in hits]
        more = len(ranking) > skip + len(shown)
        return Page([hit for _, hit in hits], (skip + len(shown),) if more else None, cursors)

    async def _tasks_by_words(self, caller: Caller, query: str, page: PageRequest) -> Page[Hit]:
        """All of them, page by page."""
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            found = await store.search(tx, caller.tenant.organization_id, query, page)
        return Page([Hit(*hit) for hit in found.items], found.next_cursor, found.cursors)

    async def _by_words(self, caller: Caller, query: str, targets: Collection[Target]) -> Ranking[Key]:
        organization_id = caller.tenant.organization_id
        rankings: list[Ranking[Key]] = []
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            if Target.TASKS in targets:
                rankings.append(await search_store.tasks_by_words(tx, organization_id, query, MOST_RANKED))
            if Target.DOCUMENTS in targets:
                owner = owner_scope(caller)
                rankings.append(await search_store.pieces_by_words(tx, organization_id, owner, query, MOST_RANKED))
        return merged(rankings)

    async def _by_meaning(self, caller: Caller, query: str, targets: Collection[Target]) -> Ranking[Key]:
        embedder, organization_id = self._services.embedder, caller.tenant.organization_id
        (vector,) = await embedder.embed([query])
        near = (vector, embedder.name, embedder.unrelated, MOST_RANKED)
        rankings: list[Ranking[Key]] = []
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            if Target.TASKS in targets:
                rankings.append(await search_store.tasks_by_meaning(tx, organization_id, *near))
            if Target.DOCUMENTS in targets:
                owner = owner_scope(caller)
                rankings.append(await search_store.pieces_by_meaning(tx, organization_id, owner, *near))
        return merged(rankings)

    async def _hits(self, caller: Caller, query: str, ranking: Ranking[Key]) -> Sequence[tuple[int, Hit]]:
        """What is still there of a ranking, each with its place after it."""
        async with self._services.database.tenant(caller.tenant, read=True) as tx:
            found = await _found(tx, caller.tenant.organization_id, query, [key for key, _ in ranking])
        return [
            (place, Hit(found[key][0], score, found[key][1]))
            for place, (key, score) in enumerate(ranking, 1)
            if key in found
        ]


async def _found(
    tx: Transaction, organization_id: UUID, query: str, keys: Sequence[Key]
) -> dict[Key, tuple[Task | Passage, str]]:
    found: dict[Key, tuple[Task | Passage, str]] = {}
    task_ids = [key for _, key, _ in keys if isinstance(key, str)]
    if task_ids:
        snippets = await search_store.task_snippets(tx, organization_id, task_ids, query)
        for task in await store.get_many(tx, organization_id, task_ids):
            found[Target.TASKS.value, task.task_id, 0] = (task, snippets.get(task.task_id, ""))
    pieces = [(key, number) for _, key, number in keys if isinstance(key, UUID)]
    if pieces:
        found |= await search_store.passages(tx, organization_id, pieces, query)
    return found
