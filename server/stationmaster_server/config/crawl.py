"""Settings of the crawler."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from stationmaster_server.config.types import Duration, Group, Positive


def _is_a_proxy(proxy: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(proxy.get_secret_value())
        bad = parts.port == 0 or not parts.hostname or parts.path not in ("", "/") or bool(parts.query)
    except ValueError:
        bad = True
    if bad or parts.scheme not in ("http", "https"):
        raise ValueError("a proxy is http://host:port or https://host:port, perhaps with user:password@")
    return proxy


UserAgent = Annotated[str, Field(pattern=r"^[ -~]{1,500}$")]


class CrawlerSettings(Group):
    """What crawls do when their task says nothing else, and what they may not do."""

    rate_limit: Duration = timedelta(seconds=1)
    """Time between the starts of two requests to one host; a site's robots.txt may ask for more. In the environment
    also `CRAWLER_RATE_LIMIT`, in seconds.
    """
    min_rate_limit: Duration = timedelta(milliseconds=100)
    """A task may not ask for a shorter one."""
    timeout: Duration = timedelta(seconds=30)
    """For one page, from the first byte sent to the last one received. In the environment also `CRAWLER_TIMEOUT`, in
    seconds.
    """
    max_concurrent: Annotated[int, Field(ge=1, le=32)] = 5
    """Pages of one crawl that are dealt with at once."""
    max_concurrent_per_host: Annotated[int, Field(ge=1, le=8)] = 2
    """Of these, how many of one host."""
    max_pages: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    """A task may not ask for more."""
    max_page_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 5 * 1024 * 1024
    """A page that is larger, as sent or as decoded, fails."""
    attempts: Annotated[Positive, Field(le=10)] = 3
    """How often a page is asked for, when the site or the network fails."""
    keep_pages: Duration = timedelta(days=30)
    """How long the pages of a crawl are kept after its end. A task's result, with what fits into it, stays."""
    user_agents: Annotated[tuple[UserAgent, ...], Field(min_length=1, max_length=20)] = ("StationmasterBot/0.1",)
    """What crawls call themselves, by turns. A robots.txt must allow a page to all of them."""
    proxies: tuple[Annotated[SecretStr, AfterValidator(_is_a_proxy)], ...] = ()
    """HTTP proxies (`http://user:password@host:port`), by turns, for tasks that ask for them (`use_proxy`)."""
