"""The kind `crawl`: the pages of a site, as Markdown."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from stationmaster_server.config.crawl import CrawlerSettings
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason, ResourceExhausted
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.outbound_proxy import proxy_url
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.tasks.crawl import page_store, told
from stationmaster_server.tasks.crawl.crawler import Crawler
from stationmaster_server.tasks.crawl.extract import Extract, Extractor, extract
from stationmaster_server.tasks.crawl.journal import Journal
from stationmaster_server.tasks.crawl.model import CrawlSummary, PageState, Progress
from stationmaster_server.tasks.crawl.outcome import reason_of_nothing, result_of
from stationmaster_server.tasks.crawl.settings import Cookie, CrawlSettings, Proxy, Stay
from stationmaster_server.tasks.crawl.urls import normalise
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Later, Payload
from stationmaster_server.tasks.model import Execution
from stationmaster_server.tasks.reports.model import Section

_EXTRACT_LIMIT = timedelta(seconds=20)
_SHIFT = timedelta(minutes=20)
_MOST_LINES = 200
_COOKIE_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]{0,4000}")
_PAGES = 100  # unless the payload says otherwise


def _is_a_url(url: str) -> str:
    if normalise(url) is None:
        raise ValueError("write http://host/path or https://host/path, without user and password")
    return url


def _is_a_proxy(url: SecretStr) -> SecretStr:
    proxy_url(url.get_secret_value())
    return url


def _is_a_value(value: SecretStr) -> SecretStr:
    if not _COOKIE_VALUE.fullmatch(value.get_secret_value()):
        raise ValueError("must be at most 4000 characters that a cookie may have")
    return value


Url = Annotated[str, Field(max_length=2000), AfterValidator(_is_a_url)]
ProxyUrl = Annotated[SecretStr, Field(max_length=500), AfterValidator(_is_a_proxy)]
UserAgent = Annotated[str, Field(pattern=r"^[ -~]{1,500}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=500)]


class CookiePayload(Payload):
    """A cookie to begin with; without a domain it is for the hosts of the start URLs."""

    name: Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}$")]
    value: Annotated[SecretStr, AfterValidator(_is_a_value)]
    domain: Annotated[str, Field(pattern=r"^[a-z0-9.-]{0,253}$")] = ""
    path: Annotated[str, Field(pattern=r"^/[^\x00-\x20;]{0,500}$")] = "/"


class CrawlPayload(Payload):
    """Where a crawl begins and how far it goes. What is absent is as the server's settings `crawl` say."""

    start_urls: Annotated[tuple[Url, ...], Field(min_length=1, max_length=100)]
    """Where it begins; always fetched, whatever the patterns."""
    max_depth: Annotated[int, Field(ge=0, le=50)] = 3
    """Links followed from there."""
    max_pages: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Pages asked for at most; redirects, `robots.txt` and sitemaps do not count."""
    stay: Stay = Stay.SITE
    """`SITE`: the hosts of the start URLs, with or without `www.`, and those below them; `HOST`: exactly these."""
    include: Annotated[tuple[Pattern, ...], Field(max_length=100)] = ()
    """Patterns (`*`, `?`) of whole URLs, or of paths with their query when they begin with `/`."""
    exclude: Annotated[tuple[Pattern, ...], Field(max_length=100)] = ()
    """The same of what is left out."""
    sitemaps: bool = True
    """Read the sitemaps that `robots.txt` names, or `/sitemap.xml`."""
    rate_limit_seconds: Annotated[float, Field(ge=0, le=3600)] | None = None
    """Between the starts of two requests to one host; `crawl.rate_limit` without."""
    timeout_seconds: Annotated[float, Field(ge=1, le=600)] | None = None
    """For one page, as a whole; `crawl.timeout` without."""
    max_concurrent: Annotated[int, Field(ge=1, le=32)] | None = None
    """Pages at once; `crawl.max_concurrent` without."""
    user_agents: Annotated[tuple[UserAgent, ...], Field(max_length=20)] = ()
    """By turns; `robots.txt` must allow a page to all of them. `crawl.user_agents` without."""
    cookies: Annotated[tuple[CookiePayload, ...], Field(max_length=50)] = ()
    """To begin with; what the site sets is added."""
    use_proxy: bool = False
    """Go by the operator's proxies, `crawl.proxies`."""
    proxies: Annotated[tuple[ProxyUrl, ...], Field(max_length=100)] = ()
    """HTTP proxies of your own, by turns; their addresses must be public."""


class CrawlKind:
    """Crawls under the execution's id: an attempt goes on where the one before stopped."""

    name: ClassVar[str] = "crawl"
    payload: ClassVar[type[BaseModel]] = CrawlPayload

    def __init__(self, database: Database, outbound: Outbound, extract: Extractor, defaults: CrawlerSettings) -> None:
        self._database = database
        self._outbound = outbound
        self._extract = extract
        self._defaults = defaults

    async def faults(self, caller: Caller, payload: Mapping[str, Any]) -> Sequence[FieldViolation]:
        """More pages, or more of them a second, than this server gives."""
        return _beyond(payload.get("rate_limit_seconds"), payload.get("max_pages"), self._defaults)

    async def run(self, job: Job[CrawlPayload]) -> Done:
        """Crawl, or go on. Raises KindFailed when not a single page could be fetched."""
        settings = settings_of(job.payload, self._defaults)
        journal = Journal(self._database, job.caller.tenant.organization_id, job.execution_id, settings.max_urls)
        crawler = Crawler(settings, journal, self._outbound, self._extract, _Teller(job))
        summary = await self._in_shifts(crawler)
        if not summary.fetched:
            await self._fail(journal, summary)
        counters = {"fetched": summary.fetched, "failed": summary.failed, "skipped": summary.skipped}
        job.progress(1.0, "", counters)
        return Done(await result_of(summary, journal))

    async def sections(self, caller: Caller, execution: Execution) -> Sequence[Section]:
        """The pages, and why other URLs have none."""
        key = (caller.tenant.organization_id, execution.id)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            fetched = await page_store.lines(tx, *key, fetched=True, limit=told.MOST_LINES)
            others = await page_store.lines(tx, *key, fetched=False, limit=told.MOST_LINES)
        return told.sections(execution.result, fetched, others)

    async def _in_shifts(self, crawler: Crawler) -> CrawlSummary:
        """A crawl may last longer than an attempt: it is handed back now and then, which counts as no attempt."""
        over = asyncio.get_running_loop().call_later(_SHIFT.total_seconds(), crawler.close)
        try:
            summary = await crawler.run()
        finally:
            over.cancel()
        if summary is None:
            raise Later(timedelta(0))
        return summary

    async def _fail(self, journal: Journal, summary: CrawlSummary) -> None:
        """Nothing was fetched: say why. Another attempt begins at the beginning."""
        why = await reason_of_nothing(summary, journal)
        await journal.forget()
        raise KindFailed(why.message, reason=why.reason, retryable=why.passing)


class _Teller:
    """Tells the watchers of an execution how its crawl goes."""

    def __init__(self, job: Job[CrawlPayload]) -> None:
        self._job = job
        self._lines = 0

    async def __call__(self, progress: Progress) -> None:
        """A page was dealt with."""
        counters = {"fetched": progress.fetched, "failed": progress.failed, "skipped": progress.skipped}
        self._job.progress(None, progress.url, counters)
        if progress.state is PageState.FAILED and self._lines < _MOST_LINES:
            self._lines += 1
            self._job.log(f"{progress.url}: {progress.error}", "warning")


def _beyond(rate_limit_seconds: object, max_pages: object, defaults: CrawlerSettings) -> list[FieldViolation]:
    """What asks for more than this server gives."""
    found, least_seconds = [], defaults.min_rate_limit.total_seconds()
    if isinstance(rate_limit_seconds, int | float) and rate_limit_seconds < least_seconds:
        text = f"must be at least {least_seconds:g} on this server (its setting crawl.min_rate_limit)"
        found.append(FieldViolation("rate_limit_seconds", text))
    if isinstance(max_pages, int | float) and max_pages > defaults.max_pages:
        text = f"must be at most {defaults.max_pages} on this server (its setting crawl.max_pages)"
        found.append(FieldViolation("max_pages", text))
    return found


def settings_of(payload: CrawlPayload, defaults: CrawlerSettings) -> CrawlSettings:
    """What a payload asks for, over the server's defaults and within its bounds. Raises InvalidArgument."""
    if beyond := _beyond(payload.rate_limit_seconds, payload.max_pages, defaults):
        raise InvalidArgument.fields([FieldViolation(f"payload.{one.field}", one.description) for one in beyond])
    rate = _seconds(payload.rate_limit_seconds, max(defaults.rate_limit, defaults.min_rate_limit))
    max_pages = payload.max_pages or min(_PAGES, defaults.max_pages)
    return CrawlSettings(
        payload.start_urls,
        max_depth=payload.max_depth,
        max_pages=max_pages,
        stay=payload.stay,
        include=payload.include,
        exclude=payload.exclude,
        sitemaps=payload.sitemaps,
        rate_limit=rate,
        max_concurrent=payload.max_concurrent or defaults.max_concurrent,
        max_concurrent_per_host=defaults.max_concurrent_per_host,
        timeout=_seconds(payload.timeout_seconds, defaults.timeout),
        max_page_bytes=defaults.max_page_bytes,
        attempts=defaults.attempts,
        user_agents=payload.user_agents or defaults.user_agents,
        cookies=tuple(Cookie(one.name, one.value.get_secret_value(), one.domain, one.path) for one in payload.cookies),
        proxies=_proxies(payload, defaults),
    )


def _proxies(payload: CrawlPayload, defaults: CrawlerSettings) -> tuple[Proxy, ...]:
    if payload.proxies:
        return tuple(Proxy(url.get_secret_value()) for url in payload.proxies)
    if not payload.use_proxy:
        return ()
    if not defaults.proxies:
        raise InvalidArgument.field("payload.use_proxy", "this server has no proxies (its setting crawl.proxies)")
    return tuple(Proxy(proxy.get_secret_value(), trusted=True) for proxy in defaults.proxies)


def _seconds(value: float | None, default: timedelta) -> timedelta:
    return default if value is None else timedelta(seconds=value)


def extract_in(pools: Pools, at_once: int) -> Extractor:
    """Extraction in a process that is ended at its limit; while all are busy it waits.

    `at_once`: of all crawls together, so that hostile pages cannot take every process for themselves.
    """
    room = asyncio.Semaphore(at_once)

    async def extracted(body: bytes, content_type: str, url: str) -> Extract:
        while True:
            try:
                async with room:
                    return await pools.cpu(extract, body, content_type, url, timeout=_EXTRACT_LIMIT)
            except ResourceExhausted as error:
                if error.reason is not Reason.SERVER_OVERLOADED:
                    raise
                await asyncio.sleep(error.retry_after.total_seconds())

    return extracted
