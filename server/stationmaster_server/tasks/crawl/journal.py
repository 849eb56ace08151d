"""What one crawl knows, durably: each change is one transaction, and none of a crawler that was replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import LeaseLost
from stationmaster_server.tasks.crawl import page_store, store
from stationmaster_server.tasks.crawl.model import Page, PageState, Result, Target, Why
from stationmaster_server.tasks.crawl.page_store import Counts
from stationmaster_server.tasks.crawl.store import Begun
from stationmaster_server.tasks.crawl.urls import host_of

_FORGET_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class _Held:
    tx: Transaction
    urls: int


class Journal:
    """The pages of one execution.

    A page whose result is written here is never handed out again, whatever dies. One that was fetched but whose result
    was not written, because the process or the database died before the commit, is.
    """

    def __init__(self, database: Database, organization_id: UUID, execution_id: UUID, max_urls: int) -> None:
        self._database = database
        self._key = (organization_id, execution_id)
        self._max_urls = max_urls
        self._fence = 0
        self.full = False

    async def begin(self) -> Begun:
        """Start the crawl or go on with it; whoever had it before gets LeaseLost from now on."""
        async with self._database.system() as tx:
            begun = await store.begin(tx, *self._key)
        self._fence = begun.fence
        return begun

    async def seed(self, starts: Sequence[str], listed: Iterable[str]) -> None:
        """The first URLs: those that were given, and those that sitemaps list."""
        async with self._hold() as held:
            added = await self._add(held, starts, 0, held.urls)
            added += await self._add(held, listed, 1, held.urls + added)
            await store.update_run(held.tx, *self._key, more_urls=added, seeded=True)

    async def take(self, limit: int, without: Sequence[str]) -> list[Target]:
        """Pages to fetch next, none of the hosts `without`."""
        async with self._hold() as held:
            return await store.take(held.tx, *self._key, self._fence, limit, without)

    async def record(self, target: Target, result: Result, cookies: Sequence[dict[str, Any]] | None) -> Result:
        """Write what became of a page, what it led to, and the cookies if they changed; returns what was written."""
        async with self._hold() as held:
            duplicate_of = None
            if result.state is PageState.FETCHED and result.content_hash is not None:
                duplicate_of = await store.find_text(held.tx, *self._key, result.content_hash)
            if duplicate_of is not None:
                result = _duplicate(result)
            await store.finish_page(held.tx, *self._key, target.url, result, duplicate_of or "")
            added = 0
            if result.reason is Why.REDIRECTED and held.urls < 2 * self._max_urls:
                where, via = result.redirect_to, (*target.via, target.url)
                onward = Target(where, host_of(where), target.depth, via)
                added = await store.redirect(held.tx, *self._key, onward, reopen=result.reopen)
            added += await self._add(held, result.links, target.depth + 1, held.urls + added)
            if added or cookies is not None:
                await store.update_run(held.tx, *self._key, more_urls=added, cookies=cookies)
        return result

    async def finish(self) -> Counts:
        """The crawl is over: what is pending will not be fetched, cookies are forgotten. Returns how it ended."""
        async with self._hold() as held:
            await store.skip_rest(held.tx, *self._key, Why.PAGE_LIMIT)
            await store.update_run(held.tx, *self._key, cookies=())
            self.full = held.urls >= self._max_urls
            return await page_store.count(held.tx, *self._key)

    async def count(self) -> Counts:
        """How many URLs are in which state."""
        async with self._database.system(autocommit=True) as tx:
            return await page_store.count(tx, *self._key)

    async def pages(self, after: int, limit: int, state: PageState | None = None) -> list[Page]:
        """Pages whose number is greater than `after`, in the order in which they were found."""
        async with self._database.system(autocommit=True) as tx:
            return await page_store.pages(tx, *self._key, after=after, limit=limit, state=state)

    async def forget(self) -> None:
        """Let the next crawler begin at the beginning."""
        async with self._hold() as held:
            await page_store.delete(held.tx, *self._key)

    async def _add(self, held: _Held, urls: Iterable[str], depth: int, have: int) -> int:
        wanted = [(url, host_of(url)) for url in dict.fromkeys(urls)]
        room = max(0, self._max_urls - have)
        return await store.add(held.tx, *self._key, wanted, depth, room) if wanted else 0

    @asynccontextmanager
    async def _hold(self) -> AsyncIterator[_Held]:
        async with self._database.system() as tx:
            urls = await store.hold(tx, *self._key, self._fence)
            if urls is None:
                raise LeaseLost(f"crawl {self._key[1]} is run by somebody else")
            yield _Held(tx, urls)


async def forget_old(database: Database, keep: timedelta) -> None:
    """Delete crawls, of all organizations, in which nothing has happened for so long."""
    more = True
    while more:
        async with database.system() as tx:
            more = await page_store.forget_old(tx, keep, _FORGET_AT_ONCE) == _FORGET_AT_ONCE


def _duplicate(result: Result) -> Result:
    return Result(
        PageState.SKIPPED,
        Why.DUPLICATE,
        status_code=result.status_code,
        attempts=result.attempts,
        size_bytes=result.size_bytes,
        content_type=result.content_type,
        title=result.title,
        canonical_url=result.canonical_url,
        content_hash=result.content_hash,
        links=result.links,
    )
