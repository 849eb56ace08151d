"""What a page says, as Markdown, and where it leads. Pure, so that a process of a pool can do it, or a thread."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser

from stationmaster_server.tasks.crawl.by_rule import to_markdown
from stationmaster_server.tasks.crawl.content import Kind, decode, kind_of
from stationmaster_server.tasks.crawl.urls import normalise

# To the library a page that is no article is an error.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
_MOST_LINKS = 5000
_TITLE_CHARACTERS = 500
_LEADING = "a[href], area[href], link[rel~=next i][href], frame[src], iframe[src], meta[http-equiv=refresh i][content]"
_LITTLE = 1_000
_FORM = re.compile(r"^(#|[-*+] |\d+\. |\||>|```)|\]\(|\*\*|`", re.MULTILINE)
"""What only Markdown has, and no bare lines."""
_REFRESH = re.compile(r";\s{0,9}url\s{0,9}=\s{0,9}[\"']?([^\"']{1,2000})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Extract:
    """What was found in a body. `links` are normalised and may lead anywhere; `readable`: it is text of some kind."""

    title: str = ""
    markdown: str = ""
    links: tuple[str, ...] = ()
    canonical_url: str = ""
    noindex: bool = False
    nofollow: bool = False
    readable: bool = True


Extractor = Callable[[bytes, str, str], Awaitable[Extract]]
"""Reads a body, given its Content-Type and its URL. What it raises makes the page FAILED, never the crawl."""


def extract(body: bytes, content_type: str, url: str) -> Extract:
    """Read a body of HTML, Markdown, plain text or XML; takes CPU time that grows with its size."""
    kind = kind_of(content_type, body)
    if kind is None:
        return Extract(readable=False)
    text = decode(content_type, body)
    if kind is Kind.HTML:
        return _from_html(text, url)
    return Extract(markdown=f"```xml\n{text.strip()}\n```" if kind is Kind.XML else text.strip())


async def extract_in_thread(body: bytes, content_type: str, url: str) -> Extract:
    """`extract` beside the event loop, for who has no pool of processes; nothing ends it before it is done."""
    return await asyncio.to_thread(extract, body, content_type, url)


def _from_html(html: str, url: str) -> Extract:
    page = LexborHTMLParser(html)
    first = page.css_first("base[href]")
    base = (normalise(first.attributes.get("href") or "", url) if first else None) or url
    title = page.css_first("title")
    rules = robots_rules(
        node.attributes.get("content") or ""
        for node in page.css("meta[name]")
        if (node.attributes.get("name") or "").lower() == "robots"
    )
    canonical = next((node.attributes.get("href") for node in page.css("link[rel~=canonical i][href]")), None)
    return Extract(
        title=_one_line(title.text() if title else "")[:_TITLE_CHARACTERS],
        markdown=_markdown(html, page, url, base),
        links=tuple(dict.fromkeys(_links(page, base))),
        canonical_url=(normalise(canonical, base) if canonical else None) or "",
        noindex="noindex" in rules,
        nofollow="nofollow" in rules,
    )


def robots_rules(values: Iterator[str]) -> frozenset[str]:
    """The rules of `<meta name=robots>` or `X-Robots-Tag` in lower case; `none` is both `noindex` and `nofollow`."""
    rules = {rule.strip().lower() for value in values for rule in value.split(",")}
    return frozenset(rules | ({"noindex", "nofollow"} if "none" in rules else set()))


def _links(page: LexborHTMLParser, base: str) -> Iterator[str]:
    for node in page.css(_LEADING)[:_MOST_LINKS]:
        if "nofollow" in (node.attributes.get("rel") or "").lower().split():
            continue
        where = node.attributes.get("href") or node.attributes.get("src") or _refresh(node.attributes.get("content"))
        url = normalise(where, base)
        if url is not None:
            yield url


def _refresh(content: str | None) -> str:
    """Where `<meta http-equiv=refresh content="5; url=…">` leads."""
    found = _REFRESH.search(content or "")
    return found.group(1) if found else ""


def _markdown(html: str, page: LexborHTMLParser, url: str, base: str) -> str:
    """The main text as Markdown; of a page without one, all of it by rule.

    Where the library finds little, it gives all text as bare lines: of headings, links and tables nothing is left.
    """
    import trafilatura  # here: most servers never read a page, and it takes 60 ms and 12 MiB

    found = trafilatura.extract(
        html, url=url, output_format="markdown", include_links=True, include_formatting=True, include_comments=False
    )
    found = (found or "").strip()
    body = page.body
    if body is not None and (not found or (len(found) < _LITTLE and not _FORM.search(found))):
        found = to_markdown(body, base).strip() or found
    return found.replace("\0", "\ufffd")


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", "\ufffd").split())
