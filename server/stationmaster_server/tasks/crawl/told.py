"""What a report tells of a crawl: its pages, and what became of the other URLs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stationmaster_server.tasks.crawl.model import Why
from stationmaster_server.tasks.crawl.page_store import Line
from stationmaster_server.tasks.reports.figures import NONE, count, size
from stationmaster_server.tasks.reports.model import Section, Table

MOST_LINES = 500
"""Of each table."""

_WORDS = {
    Why.ROBOTS: "forbidden by robots.txt",
    Why.ROBOTS_UNREACHABLE: "robots.txt could not be read",
    Why.REDIRECTED: "leads to another URL",
    Why.OUT_OF_SCOPE: "leads out of the site or the patterns",
    Why.DUPLICATE: "the same text as another page",
    Why.CONTENT_TYPE: "no text",
    Why.NOINDEX: "asks not to be kept (noindex)",
    Why.PAGE_LIMIT: "beyond max_pages",
    Why.ADDRESS_REFUSED: "an address that this server does not ask",
    Why.HTTP_STATUS: "answered with an error",
    Why.HOST_UNAVAILABLE: "the host was out of order",
    Why.NETWORK: "could not be reached",
    Why.PROXY: "the proxy failed",
    Why.TIMEOUT: "did not answer in time",
    Why.TOO_LARGE: "too large",
    Why.BROKEN_BODY: "the answer was broken",
    Why.REDIRECT_LOOP: "redirects in a circle",
    Why.TOO_MANY_REDIRECTS: "too many redirects",
    Why.EXTRACTION: "could not be read as a page",
}


def sections(result: Mapping[str, Any], fetched: Sequence[Line], others: Sequence[Line]) -> tuple[Section, ...]:
    """The pages, then the URLs that were skipped or failed, each with why."""
    pages = int(result.get("fetched", len(fetched)))
    missing = sum(int(result.get(name, 0)) for name in ("failed", "skipped")) or len(others)
    found = [Section("Pages", _bound(pages, len(fetched)), _pages(fetched))] if fetched else []
    if others:
        text = f"{_reasons(result.get('reasons', {}))}\n\n{_bound(missing, len(others))}".strip()
        found.append(Section("Skipped and failed", text, _others(others)))
    return tuple(found)


def _pages(lines: Sequence[Line]) -> Table:
    rows = tuple(
        (line.url, line.title, str(line.depth), str(line.status_code or NONE), size(line.size_bytes)) for line in lines
    )
    return Table(("URL", "Title", "Depth", "Status", "Size"), rows, frozenset({2, 3, 4}))


def _others(lines: Sequence[Line]) -> Table:
    rows = tuple((line.url, line.state.value.lower(), str(line.status_code or NONE), why(line)) for line in lines)
    return Table(("URL", "State", "Status", "Why"), rows, frozenset({2}))


def why(line: Line) -> str:
    """Why a URL has no page, in words."""
    where = line.redirect_to or line.duplicate_of
    words = line.error or (_WORDS[line.reason] if line.reason else NONE)
    return f"{words}: {where}" if where else words


def _reasons(reasons: Mapping[str, Any]) -> str:
    return "\n".join(f"- {count(int(urls))} {_WORDS[Why(name)]}" for name, urls in sorted(reasons.items()))


def _bound(all_of_them: int, listed: int) -> str:
    return f"The first {count(listed)} of {count(all_of_them)}." if listed < all_of_them else ""
