"""A crawl from its start to its end, over any number of runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.tasks.crawl.clock import Clock
from stationmaster_server.tasks.crawl.cookies import Jar, dump, jar_of
from stationmaster_server.tasks.crawl.extract import Extractor, extract_in_thread
from stationmaster_server.tasks.crawl.fetch import Fetcher
from stationmaster_server.tasks.crawl.frontier import Frontier
from stationmaster_server.tasks.crawl.hosts import Hosts
from stationmaster_server.tasks.crawl.journal import Journal
from stationmaster_server.tasks.crawl.model import CrawlSummary, PageState, Progress, Result, Target, Why
from stationmaster_server.tasks.crawl.page_store import Counts
from stationmaster_server.tasks.crawl.proxies import Proxies
from stationmaster_server.tasks.crawl.robots import Robots
from stationmaster_server.tasks.crawl.scope import Scope
from stationmaster_server.tasks.crawl.settings import CrawlSettings
from stationmaster_server.tasks.crawl.sitemaps import Sitemaps
from stationmaster_server.tasks.crawl.store import Begun
from stationmaster_server.tasks.crawl.visit import Again, Visitor

Report = Callable[[Progress], Awaitable[None]]


async def _say_nothing(progress: Progress) -> None:
    return


class Crawler:
    """Crawls what the settings say. Made for one `run`; another crawler of the same execution goes on where it stopped.

    Pausing is cancelling `run`: pages under way are given up and fetched again; pages that were recorded never are.
    """

    def __init__(
        self,
        settings: CrawlSettings,
        journal: Journal,
        outbound: Outbound,
        extract: Extractor = extract_in_thread,
        report: Report = _say_nothing,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._outbound = outbound
        self._extract = extract
        self._report = report
        self._clock = clock or Clock()
        self._scope = Scope(settings)
        self._hosts = Hosts(settings.rate_limit.total_seconds(), settings.max_concurrent_per_host, self._clock)
        self._attempts: Counter[str] = Counter()
        self._states: Counter[str] = Counter()
        self._size_bytes = 0
        self._frontier: Frontier | None = None
        self._closing = False
        self._kept = 0  # changes of the jar that are written

    def close(self) -> None:
        """Let `run` return None once the pages under way are done, at least one of them."""
        self._closing = True
        if self._frontier is not None:
            self._frontier.close()

    async def run(self) -> CrawlSummary | None:
        """Crawl until there is nothing more to fetch, or enough was; None if it was closed before.

        Raises LeaseLost when another crawler of the execution has begun, and what the journal's database raises.
        """
        begun = await self._journal.begin()
        jar = jar_of(self._settings.cookies, self._scope.hosts, begun.cookies)
        async with self._fetcher(jar) as fetcher:
            robots = Robots(fetcher, self._hosts, self._settings.user_agents, self._settings.attempts)
            await self._seed(begun, fetcher, robots)
            before = await self._journal.count()
            self._states.update(before.states)
            self._size_bytes = before.size_bytes
            frontier = Frontier(self._journal, self._hosts, before.asked, self._settings.max_pages)
            self._frontier = frontier
            if self._closing:
                frontier.close()
            visitor = Visitor(self._settings, self._scope, self._hosts, robots, fetcher, jar, self._extract)
            await self._work(frontier, visitor, jar)
        return self._summary(await self._journal.finish()) if frontier.ended else None

    def _fetcher(self, jar: Jar) -> Fetcher:
        return Fetcher(
            self._outbound,
            jar,
            Proxies(self._settings.proxies, self._clock),
            self._settings.user_agents,
            timeout=self._settings.timeout.total_seconds(),
            max_bytes=self._settings.max_page_bytes,
        )

    async def _seed(self, begun: Begun, fetcher: Fetcher, robots: Robots) -> None:
        if begun.seeded:
            return
        listed: list[str] = []
        if self._settings.sitemaps and self._settings.max_depth > 0:
            sitemaps = Sitemaps(fetcher, self._hosts, robots, self._scope, self._settings.max_urls)
            listed = await sitemaps.urls(self._scope.starts)
        await self._journal.seed(self._scope.starts, listed)

    async def _work(self, frontier: Frontier, visitor: Visitor, jar: Jar) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.max_concurrent):
                    group.create_task(self._worker(frontier, visitor, jar))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _worker(self, frontier: Frontier, visitor: Visitor, jar: Jar) -> None:
        while (target := await frontier.next()) is not None:
            self._attempts[target.url] += 1
            try:
                result = await visitor.visit(target, self._attempts[target.url])
            except Again:
                await frontier.done(target, counted=False, again=True)
                continue
            del self._attempts[target.url]
            written = await self._record(target, result, jar)
            await frontier.done(target, counted=_counts(written))
            await self._tell(target, written)

    async def _record(self, target: Target, result: Result, jar: Jar) -> Result:
        changes = jar.changes
        written = await self._journal.record(target, result, dump(jar) if changes != self._kept else None)
        self._kept = changes
        return written

    async def _tell(self, target: Target, result: Result) -> None:
        self._states[result.state] += 1
        self._size_bytes += result.size_bytes
        await self._report(
            Progress(
                fetched=self._states[PageState.FETCHED],
                failed=self._states[PageState.FAILED],
                skipped=self._states[PageState.SKIPPED],
                size_bytes=self._size_bytes,
                url=target.url,
                state=result.state,
                reason=result.reason,
                error=result.error,
            )
        )

    def _summary(self, counts: Counts) -> CrawlSummary:
        return CrawlSummary(
            fetched=counts.states[PageState.FETCHED],
            failed=counts.states[PageState.FAILED],
            skipped=counts.states[PageState.SKIPPED],
            size_bytes=counts.size_bytes,
            reasons=counts.reasons,
            full=self._journal.full,
        )


def _counts(result: Result) -> bool:
    """Whether a page counts against the limit of pages; as `asked` of the store."""
    return result.attempts > 0 and result.reason is not Why.REDIRECTED
