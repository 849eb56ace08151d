"""What a crawl is asked for, within bounds. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from stationmaster_server.errors import InvalidArgument

_MOST_PATTERNS = 100
_MOST_CHARACTERS = 500


class Stay(StrEnum):
    """How far from the start URLs links are followed."""

    SITE = "SITE"
    """Their hosts, these with or without `www.`, and hosts below them."""
    HOST = "HOST"
    """Exactly their hosts."""
    ANYWHERE = "ANYWHERE"
    """Every public host; bounded by depth and number of pages only."""


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie that a crawl begins with; without a domain it is for the hosts of the start URLs."""

    name: str
    value: str = field(repr=False)
    domain: str = ""
    path: str = "/"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy (`http://user:password@host:port`, or `https://…`).

    `trusted`: the operator named it, so it may be anywhere; one that a user named must have a public address.
    """

    url: str = field(repr=False)
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class CrawlSettings:
    """What to crawl, and how. InvalidArgument for a value out of its bounds, naming the field."""

    start_urls: tuple[str, ...]
    max_depth: int = 3
    max_pages: int = 100
    stay: Stay = Stay.SITE
    include: tuple[str, ...] = ()
    """Patterns (`*`, `?`) of URLs or, from `/` on, of paths with their query: one must match. None: all."""
    exclude: tuple[str, ...] = ()
    """Patterns of which none may match. Start URLs are fetched whatever the patterns."""
    sitemaps: bool = True
    rate_limit: timedelta = timedelta(seconds=1)
    """Between the starts of two requests to one host at least; robots.txt may ask for more."""
    max_concurrent: int = 5
    max_concurrent_per_host: int = 2
    timeout: timedelta = timedelta(seconds=30)
    """For one page, from the first byte sent to the last one received."""
    max_page_bytes: int = 5 * 1024 * 1024
    """As sent and as decoded."""
    attempts: int = 3
    """How often a page is asked for, when the site or the network fails."""
    max_wait: timedelta = timedelta(minutes=5)
    """The longest wait that a site may ask for (Retry-After) before a page is given up."""
    user_agents: tuple[str, ...] = ("StationmasterBot/0.1",)
    cookies: tuple[Cookie, ...] = ()
    proxies: tuple[Proxy, ...] = ()

    def __post_init__(self) -> None:
        for name, least, most in _COUNTS:
            _within(name, getattr(self, name), least, most)
        for name, shortest, longest in _DURATIONS:
            _within(f"{name}_seconds", getattr(self, name).total_seconds(), shortest, longest)
        for name, fewest, most, characters in _LISTS:
            values = getattr(self, name)
            _within(f"the number of {name}", len(values), fewest, most)
            for value in values:
                if not 0 < len(value) <= characters or not value.isprintable():
                    raise InvalidArgument.field(name, f"each is 1 to {characters} printable characters")
        if not all(agent.isascii() for agent in self.user_agents):
            raise InvalidArgument.field("user_agents", "each is of ASCII characters")
        _within("the number of cookies", len(self.cookies), 0, 50)
        _within("the number of proxies", len(self.proxies), 0, 100)

    @property
    def max_urls(self) -> int:
        """How many URLs are remembered at most, whatever becomes of them: a site can link to any number."""
        return max(1000, 10 * self.max_pages)


_COUNTS = (
    ("max_depth", 0, 50),
    ("max_pages", 1, 100_000),
    ("max_concurrent", 1, 32),
    ("max_concurrent_per_host", 1, 8),
    ("max_page_bytes", 1024, 64 * 1024 * 1024),
    ("attempts", 1, 10),
)
_DURATIONS = (("rate_limit", 0, 3600), ("timeout", 0.05, 600), ("max_wait", 0, 3600))
_LISTS = (
    ("start_urls", 1, 100, 2000),
    ("include", 0, _MOST_PATTERNS, _MOST_CHARACTERS),
    ("exclude", 0, _MOST_PATTERNS, _MOST_CHARACTERS),
    ("user_agents", 1, 20, _MOST_CHARACTERS),
)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InvalidArgument.field(name, f"must be between {least:g} and {most:g}, not {value:g}")
