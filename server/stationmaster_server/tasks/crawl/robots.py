"""robots.txt of each origin, asked for once a run (RFC 9309)."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urljoin

from protego import Protego

from stationmaster_server.tasks.crawl.content import decode
from stationmaster_server.tasks.crawl.fetch import Fetcher, FetchFailed
from stationmaster_server.tasks.crawl.hosts import Hosts
from stationmaster_server.tasks.crawl.model import Why
from stationmaster_server.tasks.crawl.urls import host_of, normalise, origin_of

_MOST_BYTES = 500 * 1024
_MOST_REDIRECTS = 5
_MOST_KEPT = 8 * 1024 * 1024
_LONGEST_DELAY = 600.0
_MOST_SITEMAPS = 20
_WORD = re.compile(r"[a-z0-9_-]+")
_AGENT_LINE = re.compile(r"\s*user-?\s?agent\s*:?\s*(?P<name>[^#]*)", re.IGNORECASE)


class Verdict(Enum):
    """Whether a URL may be fetched."""

    ALLOWED = "allowed"
    DISALLOWED = "disallowed"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the robots.txt of one origin says to all the user agents of a crawl together: the strictest counts."""

    parsed: Protego | None = None
    user_agents: tuple[str, ...] = ()
    failure: FetchFailed | None = None
    sitemaps: tuple[str, ...] = ()
    size: int = 1000  # bytes of text, and something for the rest

    def verdict(self, url: str) -> Verdict:
        """Whether a URL of the origin may be fetched."""
        if self.failure is not None:
            return Verdict.UNREACHABLE
        if self.crawl_delay > _LONGEST_DELAY:
            return Verdict.DISALLOWED  # so seldom means: not at all
        if self.parsed is None or all(self.parsed.can_fetch(url, agent) for agent in self.user_agents):
            return Verdict.ALLOWED
        return Verdict.DISALLOWED

    @property
    def crawl_delay(self) -> float:
        """The seconds between two requests that it asks for, as Crawl-delay or Request-rate."""
        if self.parsed is None:
            return 0.0
        delays = [self.parsed.crawl_delay(agent) or 0.0 for agent in self.user_agents]
        rates = [rate for agent in self.user_agents if (rate := self.parsed.request_rate(agent))]
        return max([*delays, *(rate.seconds / max(1, rate.requests) for rate in rates)])


class Robots:
    """The rules of every origin that the crawl came to."""

    def __init__(self, fetcher: Fetcher, hosts: Hosts, user_agents: tuple[str, ...], attempts: int) -> None:
        self._fetcher = fetcher
        self._hosts = hosts
        self._user_agents = user_agents
        self._attempts = attempts
        self._known: OrderedDict[str, Rules] = OrderedDict()
        self._size = 0  # of what is known
        self._locks: dict[str, asyncio.Lock] = {}

    async def rules(self, url: str) -> Rules:
        """The rules of a URL's origin; whoever asks first fetches them, the others wait."""
        origin = origin_of(url)
        known = self._known.get(origin)
        if known is not None:
            return known
        async with self._locks.setdefault(origin, asyncio.Lock()):
            if origin not in self._known:
                self._keep(origin, await self._fetch(f"{origin}/robots.txt"))
                self._hosts.slow_down(host_of(url), min(self._known[origin].crawl_delay, _LONGEST_DELAY))
            self._locks.pop(origin, None)
            return self._known[origin]

    def _keep(self, origin: str, rules: Rules) -> None:
        """Remember rules; of so many, or so large ones, that they would fill the memory, forget those known longest."""
        self._known[origin] = rules
        self._size += rules.size
        while self._size > _MOST_KEPT and len(self._known) > 1:
            self._size -= self._known.popitem(last=False)[1].size

    async def _fetch(self, url: str) -> Rules:
        for attempt in range(1, self._attempts + 1):
            try:
                return await self._follow(url)
            except FetchFailed as error:
                if not error.retryable or attempt == self._attempts:
                    return Rules(failure=error)
                self._hosts.rest(host_of(url), 2.0**attempt)
        raise AssertionError("a last attempt returns")

    async def _follow(self, url: str) -> Rules:
        for _ in range(_MOST_REDIRECTS + 1):
            await self._hosts.turn(host_of(url))
            answer = await self._fetcher.fetch(url, lambda answer: 200 <= answer.status < 300, cut=_MOST_BYTES)
            if 200 <= answer.status < 300:
                return await asyncio.to_thread(parse, answer.body, self._user_agents, url)
            if answer.status == 429 or answer.status >= 500:
                raise FetchFailed(Why.HTTP_STATUS, f"robots.txt answered {answer.status}", retryable=True)
            onward = normalise(answer.headers.get("location", ""), url) if 300 <= answer.status < 400 else None
            if onward is None:
                return Rules()  # there is none
            url = onward
        return Rules()


def parse(body: bytes, user_agents: tuple[str, ...], url: str) -> Rules:
    """The rules in a robots.txt, as far as they are for one of the user agents or for all."""
    parsed = Protego.parse("\n".join(_ours(decode("text/plain; charset=utf-8", body).splitlines(), user_agents)))
    listed = (normalise(urljoin(url, sitemap)) for sitemap in parsed.sitemaps)
    sitemaps = tuple(dict.fromkeys(sitemap for sitemap in listed if sitemap))[:_MOST_SITEMAPS]
    return Rules(parsed, user_agents, sitemaps=sitemaps, size=1000 + len(body))


def _ours(lines: Iterable[str], user_agents: tuple[str, ...]) -> Iterator[str]:
    """The lines with every user agent that is none of ours called the same.

    The rules of a group are kept for each of its agents: a file of many agents and many rules would take the memory of
    their product.
    """
    words = {word for agent in user_agents for word in _WORD.findall(agent.lower())}
    for line in lines:
        agent = _AGENT_LINE.match(line)
        if agent is None:
            yield line
            continue
        name = agent["name"].strip().lower()
        word = _WORD.match(name)
        ours = "*" if name == "*" else word.group() if word and word.group() in words else "somebody-else"
        yield f"User-agent: {ours}"
