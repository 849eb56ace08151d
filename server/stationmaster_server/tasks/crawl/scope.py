"""Which URLs belong to a crawl."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks.crawl.settings import CrawlSettings, Stay
from stationmaster_server.tasks.crawl.urls import host_of, is_endless, normalise, origin_of


class Scope:
    """The start URLs of a crawl, normalised, and which links are followed from there."""

    def __init__(self, settings: CrawlSettings) -> None:
        self.starts = tuple(dict.fromkeys(_start(url) for url in settings.start_urls))
        self.hosts = tuple(dict.fromkeys(host_of(url) for url in self.starts))
        self._stay = settings.stay
        self._sites = tuple(host.removeprefix("www.") for host in self.hosts)
        self._include = tuple(_pattern(pattern) for pattern in settings.include)
        self._exclude = tuple(_pattern(pattern) for pattern in settings.exclude)

    def admits(self, url: str) -> bool:
        """Whether a normalised URL is to be fetched when it is found."""
        if url in self.starts:
            return True
        if not self._near(host_of(url)) or is_endless(url):
            return False
        names = (url, url[len(origin_of(url)) :])
        if self._include and not _matches(self._include, names):
            return False
        return not _matches(self._exclude, names)

    def _near(self, host: str) -> bool:
        if self._stay is Stay.ANYWHERE:
            return True
        if self._stay is Stay.HOST:
            return host in self.hosts
        return any(host == site or host.endswith(f".{site}") for site in self._sites)


def _start(url: str) -> str:
    normal = normalise(url)
    if normal is None:
        raise InvalidArgument.field(
            "start_urls", "each is http://host/path or https://host/path, without user and password"
        )
    return normal


def _pattern(pattern: str) -> re.Pattern[str]:
    # A bracket is itself in a URL, not the beginning of a set of characters.
    return re.compile(translate(pattern.replace("[", "[[]")))


def _matches(patterns: Iterable[re.Pattern[str]], names: Iterable[str]) -> bool:
    return any(pattern.match(name) for pattern in patterns for name in names)
