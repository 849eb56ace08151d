"""A web site on loopback that behaves as a test says, well or badly, and notes what it was asked."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    """One request, and the time of the test's clock at which it came."""

    path: str
    headers: Mapping[str, str]
    at: float


@dataclass(frozen=True)
class Streamed:
    """A response that is written by hand; decorates who writes it."""

    write: Callable[[asyncio.StreamWriter], Awaitable[None]]


Page = bytes | Streamed | Callable[[Asked], bytes]


@dataclass
class Site:
    """What it serves by path; anything else is 404."""

    pages: dict[str, Page] = field(default_factory=dict)
    fallback: Callable[[Asked], bytes] | None = None
    now: Callable[[], float] = lambda: 0.0
    port: int = 0
    host: str = "127.0.0.1"
    log: list[Asked] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str = "/") -> str:
        """The URL of a path."""
        return f"http://{self.host}:{self.port}{path}"

    @property
    def counts(self) -> Counter[str]:
        """How often each path was asked for."""
        return Counter(asked.path for asked in self.log)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
                asked = Asked(lines[0].split()[1], headers, self.now())
                self.log.append(asked)
                await self._answer(asked, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        page = self.pages.get(asked.path) or self.pages.get(asked.path.partition("?")[0])
        if page is None:
            page = self.fallback(asked) if self.fallback else response(b"not here", status=404)
        if isinstance(page, Streamed):
            await page.write(writer)
        else:
            writer.write(page if isinstance(page, bytes) else page(asked))


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[Site]:
    """The site, reachable on a free port."""
    server = await asyncio.start_server(site.accept, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for task in list(site.tasks):
            task.cancel()
        await asyncio.gather(*site.tasks, return_exceptions=True)


def response(body: bytes, *headers: str, status: int = 200, kind: str = "text/html; charset=utf-8") -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status} Answer", f"Content-Length: {len(body)}", *headers]
    if kind:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def page(text: str = "", links: Iterable[str] = (), *headers: str, head: str = "", status: int = 200) -> bytes:
    """An HTML page with a text of its own and links."""
    listed = "".join(f'<li><a href="{link}">{link}</a></li>' for link in links)
    html = (
        f"<!doctype html><html><head><title>{text}</title>{head}</head><body><main><h1>{text}</h1>"
        f"<p>What this page says about {text}, in a sentence that is long enough.</p></main>"
        f"<ul>{listed}</ul></body></html>"
    )
    return response(html.encode(), *headers, status=status)


def redirect(where: str, *headers: str, status: int = 302) -> bytes:
    """A response that leads elsewhere."""
    return response(b"", f"Location: {where}", *headers, status=status)


def robots(*lines: str) -> bytes:
    """A robots.txt."""
    return response("\n".join(lines).encode(), kind="text/plain")


def sitemap(urls: Iterable[str], *, index: bool = False, zipped: bool = False) -> bytes:
    """A sitemap, or an index of sitemaps."""
    outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
    body = "".join(f"<{inner}><loc>{url.replace('&', '&amp;')}</loc></{inner}>" for url in urls)
    xml = f'<?xml version="1.0"?><{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{body}</{outer}>'.encode()
    return response(gzip.compress(xml) if zipped else xml, kind="application/gzip" if zipped else "application/xml")
