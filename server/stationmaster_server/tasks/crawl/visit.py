"""One page: may it be fetched, what came, what is in it, what follows."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

from stationmaster_server.errors import StationmasterError, Unavailable
from stationmaster_server.tasks.crawl.content import is_readable
from stationmaster_server.tasks.crawl.cookies import Jar
from stationmaster_server.tasks.crawl.extract import Extract, Extractor, robots_rules
from stationmaster_server.tasks.crawl.fetch import Answer, Fetcher, FetchFailed
from stationmaster_server.tasks.crawl.hosts import Hosts
from stationmaster_server.tasks.crawl.model import MAX_REDIRECTS, PageState, Result, Target, Why
from stationmaster_server.tasks.crawl.robots import Robots, Verdict
from stationmaster_server.tasks.crawl.scope import Scope
from stationmaster_server.tasks.crawl.settings import CrawlSettings
from stationmaster_server.tasks.crawl.urls import normalise

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FIRST_PAUSE = 1.0
_ERROR_CHARACTERS = 500


class Again(Exception):
    """The page is to be tried once more; its host has been left alone for a while."""


class Visitor:
    """Visits the pages of one crawl."""

    def __init__(
        self,
        settings: CrawlSettings,
        scope: Scope,
        hosts: Hosts,
        robots: Robots,
        fetcher: Fetcher,
        jar: Jar,
        extract: Extractor,
    ) -> None:
        self._settings = settings
        self._scope = scope
        self._hosts = hosts
        self._robots = robots
        self._fetcher = fetcher
        self._jar = jar
        self._extract = extract

    async def visit(self, target: Target, attempt: int) -> Result:
        """What becomes of a page at its attempt of this number. Raises Again when another one is worth it."""
        if self._hosts.is_given_up(target.host):
            return _failed(Why.HOST_UNAVAILABLE, f"{target.host} failed too often in a row to be asked any more")
        rules = await self._robots.rules(target.url)
        match rules.verdict(target.url):
            case Verdict.UNREACHABLE:
                return _without_robots(rules.failure)
            case Verdict.DISALLOWED:
                return Result(PageState.SKIPPED, Why.ROBOTS)
        await self._hosts.turn(target.host)
        try:
            answer = await self._fetcher.fetch(target.url, _is_wanted)
        except FetchFailed as error:
            return self._after_failure(target, attempt, error)
        if answer.status in _RETRIED:
            return self._after_refusal(target, attempt, answer)
        self._hosts.answered(target.host)
        result = await self._read(target, answer)
        return replace(result, status_code=answer.status, attempts=attempt, content_type=answer.content_type[:200])

    def _after_failure(self, target: Target, attempt: int, error: FetchFailed) -> Result:
        if error.retryable and attempt < self._settings.attempts:
            if error.of_host:
                self._hosts.rest(target.host, self._pause(attempt))
            raise Again
        if error.of_host:
            self._hosts.failed(target.host)
        return replace(_failed(error.why, str(error)), attempts=attempt)

    def _after_refusal(self, target: Target, attempt: int, answer: Answer) -> Result:
        longest = self._settings.max_wait.total_seconds()
        asked = answer.retry_after
        self._hosts.rest(target.host, min(longest, self._pause(attempt) if asked is None else asked))
        if attempt < self._settings.attempts and (asked or 0.0) <= longest:
            raise Again
        self._hosts.failed(target.host)
        wait = f" and asks to come again in {asked:.0f} s" if asked else ""
        failed = _failed(Why.HTTP_STATUS, f"the site answered {answer.status}{wait}")
        return replace(failed, status_code=answer.status, attempts=attempt)

    def _pause(self, attempt: int) -> float:
        return min(self._settings.max_wait.total_seconds(), _FIRST_PAUSE * 2.0 ** (attempt - 1))

    async def _read(self, target: Target, answer: Answer) -> Result:
        if answer.status in _REDIRECTS and "location" in answer.headers:
            return self._redirected(target, answer)
        if not 200 <= answer.status < 300:
            return _failed(Why.HTTP_STATUS, f"the site answered {answer.status}")
        if not is_readable(answer.content_type):
            return Result(PageState.SKIPPED, Why.CONTENT_TYPE)
        try:
            found = await self._extract(answer.body, answer.content_type, target.url)
        except Unavailable:
            raise  # this server is stopping
        except Exception as error:  # noqa: BLE001 - whatever a library does on a hostile page, the crawl goes on
            told = error.message if isinstance(error, StationmasterError) else type(error).__name__
            return _failed(Why.EXTRACTION, f"the page could not be read: {told}")
        return await self._page(target, answer, found)

    def _redirected(self, target: Target, answer: Answer) -> Result:
        where = normalise(answer.headers["location"], target.url)
        if where is None:
            return _failed(Why.HTTP_STATUS, "the site redirects to what is no http or https URL")
        chain = (*target.via, target.url)
        too_many = len(chain) > MAX_REDIRECTS
        # With a cookie that was set on the way, a page may answer otherwise than it did.
        if where in chain and (too_many or not self._jar.changes):
            return _failed(Why.REDIRECT_LOOP, f"the redirects lead back to {where}")
        if too_many:
            return _failed(Why.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS} redirects, begun at {chain[0]}")
        if not self._scope.admits(where):
            return Result(PageState.SKIPPED, Why.OUT_OF_SCOPE, redirect_to=where)
        return Result(PageState.SKIPPED, Why.REDIRECTED, redirect_to=where, reopen=where in chain)

    async def _page(self, target: Target, answer: Answer, found: Extract) -> Result:
        if not found.readable:
            return Result(PageState.SKIPPED, Why.CONTENT_TYPE)
        rules = robots_rules(iter(answer.headers.get_list("x-robots-tag")))
        canonical = found.canonical_url if found.canonical_url != target.url else ""
        follow = not found.nofollow and "nofollow" not in rules and target.depth < self._settings.max_depth
        links = await asyncio.to_thread(self._admitted, (canonical, *found.links)) if follow else ()
        common = Result(PageState.FETCHED, size_bytes=len(answer.body), title=found.title, links=links)
        if found.noindex or "noindex" in rules:
            return replace(common, state=PageState.SKIPPED, reason=Why.NOINDEX)
        text = found.markdown
        digest = hashlib.sha256(text.encode()).digest() if text else None
        return replace(common, markdown=text, canonical_url=canonical, content_hash=digest)

    def _admitted(self, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(url for url in urls if url and self._scope.admits(url))


def _is_wanted(answer: Answer) -> bool:
    return 200 <= answer.status < 300 and is_readable(answer.content_type)


def _failed(why: Why, error: str) -> Result:
    return Result(PageState.FAILED, why, error=error[:_ERROR_CHARACTERS])


def _without_robots(failure: FetchFailed | None) -> Result:
    if failure is not None and failure.why is Why.ADDRESS_REFUSED:
        return _failed(Why.ADDRESS_REFUSED, str(failure))
    return _failed(Why.ROBOTS_UNREACHABLE, f"what robots.txt allows is not known: {failure}")
