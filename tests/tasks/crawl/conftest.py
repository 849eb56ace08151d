"""Crawls of a real local site, with their pages in a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.tasks.crawl import page_store
from stationmaster_server.tasks.crawl.clock import Clock
from stationmaster_server.tasks.crawl.crawler import Crawler
from stationmaster_server.tasks.crawl.extract import Extractor, extract_in_thread
from stationmaster_server.tasks.crawl.journal import Journal
from stationmaster_server.tasks.crawl.model import CrawlSummary, Page, PageState, Progress, Why
from stationmaster_server.tasks.crawl.settings import CrawlSettings

from tests.tasks.crawl.site import Site, serving

ALLOWED = ("127.0.0.1", "localhost")


class Instantly(Clock):
    """A clock on which every wait is over at once, and its time has passed."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        """The time that all waits together have taken."""
        return self.time

    async def sleep_until(self, time: float) -> None:
        """Be there."""
        self.time = max(self.time, time)
        await asyncio.sleep(0)


@dataclass
class Crawl:
    """One execution, whose crawler may be run again and again."""

    database: Database
    tenant: Tenant
    settings: CrawlSettings
    execution_id: UUID = field(default_factory=new_id)
    outbound: Outbound = field(default_factory=lambda: Outbound(ALLOWED))
    clock: Clock = field(default_factory=Instantly)
    extract: Extractor = extract_in_thread
    progress: list[Progress] = field(default_factory=list)

    def journal(self) -> Journal:
        """What it knows."""
        return Journal(self.database, self.tenant.organization_id, self.execution_id, self.settings.max_urls)

    def crawler(self) -> Crawler:
        """A fresh crawler of the execution."""

        async def report(progress: Progress) -> None:
            self.progress.append(progress)

        return Crawler(self.settings, self.journal(), self.outbound, self.extract, report, self.clock)

    async def run(self) -> CrawlSummary:
        """Crawl to the end."""
        async with asyncio.timeout(60):
            summary = await self.crawler().run()
            assert summary is not None
            return summary

    async def pages(self) -> dict[str, Page]:
        """What became of each URL, by its path and query."""
        async with self.database.system(autocommit=True) as tx:
            found = await page_store.pages(tx, self.tenant.organization_id, self.execution_id, limit=100_000)
        return {"/" + page.url.split("/", 3)[3]: page for page in found}

    async def fetched(self) -> set[str]:
        """The paths whose text is there."""
        return {path for path, page in (await self.pages()).items() if page.state is PageState.FETCHED}

    async def reasons(self) -> dict[str, Why | None]:
        """Why each page that was not fetched was not."""
        return {path: page.reason for path, page in (await self.pages()).items() if page.state is not PageState.FETCHED}


@pytest.fixture
def clock() -> Instantly:
    """A clock that does not let anybody wait."""
    return Instantly()


@pytest_asyncio.fixture
async def site(clock: Instantly) -> AsyncIterator[Site]:
    """A site without pages, whose log goes by the clock of the test."""
    async with serving(Site(now=clock.now)) as site:
        yield site


MakeCrawl = Callable[..., Crawl]


@pytest.fixture
def crawl(database: Database, tenant: Tenant, site: Site, clock: Instantly) -> MakeCrawl:
    """Make a crawl of the site: of `/`, or of the URLs and with the settings that are given."""

    def make(*paths: str, crawl: dict[str, Any] | None = None, **changes: Any) -> Crawl:
        urls = tuple(path if "://" in path else site.url(path) for path in paths or ("/",))
        settings = replace(CrawlSettings(urls, sitemaps=False, rate_limit=timedelta(0)), **changes)
        return Crawl(database, tenant, settings, clock=clock, **(crawl or {}))

    return make
