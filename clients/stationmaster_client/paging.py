"""Lists: all items over all pages, or page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypedDict, TypeVar

T = TypeVar("T")


class Query(TypedDict, total=False):
    """What every list takes: `filter` (AIP-160), `order_by`, and `page_size`, how many to fetch at once."""

    filter: str
    order_by: str
    page_size: int


class Pattern(TypedDict, total=False):
    """What lists of contents take: `filter`, a name or a pattern with `*`, and `page_size`."""

    filter: str
    page_size: int


class Page(Protocol):
    """A response that may have a next page."""

    next_page_token: str


P = TypeVar("P", bound=Page)


class Listing(Generic[T, P]):
    """What a list call found. `async for item in listing` fetches pages as they are needed."""

    def __init__(self, fetch: Callable[[str], Awaitable[P]], items: Callable[[P], Sequence[T]]) -> None:
        self._fetch = fetch
        self._items = items

    async def pages(self) -> AsyncIterator[P]:
        """Every page, as the server sent it."""
        token = ""
        while True:
            page = await self._fetch(token)
            yield page
            token = page.next_page_token
            if not token:
                return

    async def page(self, token: str = "") -> P:
        """One page: the first, or that of a token which the page before it gave."""
        return await self._fetch(token)

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in self._items(page):
                yield item
