"""Sitemaps: the pages that a site lists itself, bounded in number, size and depth."""

from __future__ import annotations

import asyncio
import html
import re
import zlib
from collections import deque
from collections.abc import Iterable

from stationmaster_server.tasks.crawl.content import decode
from stationmaster_server.tasks.crawl.fetch import Fetcher, FetchFailed
from stationmaster_server.tasks.crawl.hosts import Hosts
from stationmaster_server.tasks.crawl.robots import Robots, Verdict
from stationmaster_server.tasks.crawl.scope import Scope
from stationmaster_server.tasks.crawl.urls import host_of, normalise, origin_of

_MOST_SITEMAPS = 50
_MOST_LEVELS = 3
_MOST_BYTES = 10 * 1024 * 1024  # inflated; the rest of a larger one is left out
_GZIP = b"\x1f\x8b"
_INDEX = re.compile(r"<sitemapindex[\s>]", re.IGNORECASE)
# XML is not parsed: no entity is expanded, no depth reached, and a broken file gives what it can.
_LOCATION = re.compile(r"<loc>\s*(?:<!\[CDATA\[)?\s*([^<\]]{1,4000})", re.IGNORECASE)


class Sitemaps:
    """Reads the sitemaps that robots.txt names, or `/sitemap.xml` where it names none."""

    def __init__(self, fetcher: Fetcher, hosts: Hosts, robots: Robots, scope: Scope, most: int) -> None:
        self._fetcher = fetcher
        self._hosts = hosts
        self._robots = robots
        self._scope = scope
        self._most = most

    async def urls(self, starts: Iterable[str]) -> list[str]:
        """The URLs that the sites of these URLs list, as far as they belong to the crawl: at most `most`."""
        waiting: deque[tuple[str, int]] = deque()
        for origin in dict.fromkeys(origin_of(url) for url in starts):
            rules = await self._robots.rules(origin)
            waiting.extend((url, 1) for url in rules.sitemaps or (f"{origin}/sitemap.xml",))
        seen: set[str] = set()
        found: dict[str, None] = {}
        while waiting and len(seen) < _MOST_SITEMAPS and len(found) < self._most:
            url, level = waiting.popleft()
            if url in seen:
                continue
            seen.add(url)
            body = await self._fetch(url)
            is_index, locations = await asyncio.to_thread(self._read, body, url)
            if is_index and level < _MOST_LEVELS:
                waiting.extend((location, level + 1) for location in locations[:_MOST_SITEMAPS])
            elif not is_index:
                found |= dict.fromkeys(locations)
        return list(found)[: self._most]

    def _read(self, body: bytes, url: str) -> tuple[bool, list[str]]:
        is_index, locations = read(body, url, self._most)
        return is_index, locations if is_index else [location for location in locations if self._scope.admits(location)]

    async def _fetch(self, url: str) -> bytes:
        """A sitemap; nothing when there is none: the links of the pages remain."""
        rules = await self._robots.rules(url)
        if rules.verdict(url) is not Verdict.ALLOWED:
            return b""
        await self._hosts.turn(host_of(url))
        try:
            answer = await self._fetcher.fetch(url, lambda answer: answer.status == 200, cut=_MOST_BYTES)
        except FetchFailed:
            return b""
        return answer.body


def read(body: bytes, url: str, most: int) -> tuple[bool, list[str]]:
    """Whether a sitemap is an index, and the URLs in it: XML, or text with one a line, each perhaps in gzip."""
    if body.startswith(_GZIP):
        try:
            body = zlib.decompressobj(wbits=31).decompress(body, _MOST_BYTES)
        except zlib.error:
            return False, []
    text = decode("", body)
    listed: list[str] = []
    is_xml = "<" in text[:1000]
    for found in (match.group(1) for match in _LOCATION.finditer(text)) if is_xml else text.splitlines():
        location = normalise(html.unescape(found.strip()), url) if found.strip() else None
        if location is not None:
            listed.append(location)
        if len(listed) >= most:
            break
    return bool(_INDEX.search(text[:5000])), listed
