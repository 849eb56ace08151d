"""What a crawl finds, and how it ends. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MAX_REDIRECTS = 10


class PageState(StrEnum):
    """Where a URL stands. What is not PENDING is final."""

    PENDING = "PENDING"
    FETCHED = "FETCHED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class Why(StrEnum):
    """Why a page was skipped or failed."""

    ROBOTS = "ROBOTS"
    ROBOTS_UNREACHABLE = "ROBOTS_UNREACHABLE"
    REDIRECTED = "REDIRECTED"
    OUT_OF_SCOPE = "OUT_OF_SCOPE"
    DUPLICATE = "DUPLICATE"
    CONTENT_TYPE = "CONTENT_TYPE"
    NOINDEX = "NOINDEX"
    PAGE_LIMIT = "PAGE_LIMIT"
    ADDRESS_REFUSED = "ADDRESS_REFUSED"
    HTTP_STATUS = "HTTP_STATUS"
    HOST_UNAVAILABLE = "HOST_UNAVAILABLE"
    NETWORK = "NETWORK"
    PROXY = "PROXY"
    TIMEOUT = "TIMEOUT"
    TOO_LARGE = "TOO_LARGE"
    BROKEN_BODY = "BROKEN_BODY"
    REDIRECT_LOOP = "REDIRECT_LOOP"
    TOO_MANY_REDIRECTS = "TOO_MANY_REDIRECTS"
    EXTRACTION = "EXTRACTION"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that is to be fetched. `via`: the URLs whose redirects led to it, the first one first."""

    url: str
    host: str
    depth: int
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a page, and the links found in it. `redirect_to` of a page that was REDIRECTED."""

    state: PageState
    reason: Why | None = None
    error: str = ""
    status_code: int | None = None
    attempts: int = 0
    size_bytes: int = 0
    content_type: str = ""
    title: str = ""
    markdown: str = ""
    canonical_url: str = ""
    content_hash: bytes | None = None
    redirect_to: str = ""
    reopen: bool = False  # a URL that led here by a redirect is to be asked once more
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A URL of a crawl as it is stored. `duplicate_of` has the same text."""

    number: int
    url: str
    depth: int
    state: PageState
    reason: Why | None
    error: str
    attempts: int
    status_code: int | None
    size_bytes: int
    content_type: str
    title: str
    markdown: str
    canonical_url: str
    redirect_to: str
    duplicate_of: str
    content_hash: bytes | None
    fetched_at: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a crawl is."""

    fetched: int
    failed: int
    skipped: int
    size_bytes: int
    url: str = ""
    """The newest page, and what became of it."""
    state: PageState = PageState.PENDING
    reason: Why | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class CrawlSummary:
    """How a crawl ended. `reasons` counts what was skipped or failed by its reason."""

    fetched: int
    failed: int
    skipped: int
    size_bytes: int
    reasons: Mapping[str, int]
    full: bool
    """Whether as many URLs were found as a crawl of this size remembers: further ones were left out."""
