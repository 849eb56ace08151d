"""What an execution is told of its crawl: a result of bounded size, or why there is none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from stationmaster_server.tasks.crawl.journal import Journal
from stationmaster_server.tasks.crawl.model import CrawlSummary, Page, PageState, Why

_MOST_PAGES = 1000
_MOST_BYTES = 768 * 1024
_AT_ONCE = 50
_PASSING = frozenset({Why.NETWORK, Why.TIMEOUT, Why.PROXY, Why.ROBOTS_UNREACHABLE, Why.HOST_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Nothing:
    """Why no page was fetched; `passing`: it may be otherwise the next time."""

    reason: str
    message: str
    passing: bool


async def result_of(summary: CrawlSummary, journal: Journal) -> dict[str, Any]:
    """The summary and the pages with their texts, in the order in which they were found, as far as there is room.

    `pages_left_out`: how many are not listed; `texts_left_out`: how many are listed without their text.
    """
    listed: list[dict[str, Any]] = []
    texts_left_out = size = after = 0
    while len(listed) < _MOST_PAGES:
        batch = await journal.pages(after, min(_AT_ONCE, _MOST_PAGES - len(listed)), PageState.FETCHED)
        for page in batch:
            entry = {"url": page.url, "title": page.title, "depth": page.depth, "text": page.markdown}
            if size + _size(entry) > _MOST_BYTES:
                del entry["text"]
                texts_left_out += 1
            size += _size(entry)
            listed.append(entry)
        if not batch or size > _MOST_BYTES:
            break
        after = batch[-1].number
    return {
        "fetched": summary.fetched,
        "failed": summary.failed,
        "skipped": summary.skipped,
        "size_bytes": summary.size_bytes,
        "reasons": dict(summary.reasons),
        "full": summary.full,
        "pages": listed,
        "pages_left_out": summary.fetched - len(listed),
        "texts_left_out": texts_left_out,
    }


async def reason_of_nothing(summary: CrawlSummary, journal: Journal) -> Nothing:
    """Why nothing was fetched: what became of the first URL for which that is known."""
    pages = await journal.pages(0, _AT_ONCE)
    page = next((page for page in pages if page.reason is not Why.REDIRECTED), pages[0])
    passing = page.reason in _PASSING or (page.reason is Why.HTTP_STATUS and (page.status_code or 0) >= 429)
    return Nothing(page.reason or "NOTHING", f"no page could be fetched; {page.url}: {_told(page)}", passing)


def _told(page: Page) -> str:
    told = {
        Why.ROBOTS: "its robots.txt forbids it",
        Why.CONTENT_TYPE: f"it is no text but {page.content_type or 'something else'}",
        Why.NOINDEX: "it asks not to be kept (noindex)",
        Why.OUT_OF_SCOPE: f"it redirects to another site: {page.redirect_to}; begin there",
    }
    return page.error or told.get(page.reason or Why.NETWORK, str(page.reason))


def _size(entry: dict[str, Any]) -> int:
    return len(json.dumps(entry)) + 2
