"""Sites that are slow, broken, full or hostile cost a crawl what its limits say, and a page at a time."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from collections.abc import Callable
from datetime import timedelta

import pytest
from stationmaster_server.tasks.crawl.model import PageState, Why

from tests.tasks.crawl.conftest import Instantly, MakeCrawl
from tests.tasks.crawl.site import Asked, Page, Site, Streamed, page, redirect, response

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
SHORT = timedelta(milliseconds=300)


@Streamed
async def _slow_head(writer: asyncio.StreamWriter) -> None:
    for byte in HEAD:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


@Streamed
async def _slow_body(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


@Streamed
async def _silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@Streamed
async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 1000\r\n\r\nthe beginning")
    await writer.drain()
    writer.transport.abort()


@Streamed
async def _garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01\x02 nonsense\r\n\r\n")
    await writer.drain()
    writer.transport.abort()


@Streamed
async def _endless_header(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    while True:
        writer.write(b"X-More: " + b"y" * 1000 + b"\r\n")
        await writer.drain()


@Streamed
async def _endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("answer", [_slow_head, _slow_body, _silence], ids=["head", "body", "silence"])
async def test_a_page_that_comes_too_slowly_fails_at_its_time_limit(
    site: Site, crawl: MakeCrawl, answer: Streamed
) -> None:
    site.pages = {"/": page("home", ["/slow", "/other"]), "/slow": answer, "/other": page("other")}
    crawled = crawl(timeout=SHORT, attempts=2)
    await crawled.run()
    assert await crawled.fetched() == {"/", "/other"}
    assert await crawled.reasons() == {"/slow": Why.TIMEOUT}
    assert (await crawled.pages())["/slow"].attempts == 2
    assert site.counts["/slow"] == 2


async def test_a_body_that_comes_below_the_least_speed_is_not_waited_for(
    site: Site, crawl: MakeCrawl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stationmaster_server.tasks.crawl.fetch._GRACE", 0.2)
    site.pages = {"/": page("home", ["/slow"]), "/slow": _slow_body}
    crawled = crawl(timeout=timedelta(minutes=10), attempts=1)
    await crawled.run()
    assert await crawled.reasons() == {"/slow": Why.TIMEOUT}


@pytest.mark.parametrize("answer", [_hang_up, _garbage, _endless_header], ids=["hang up", "garbage", "endless header"])
async def test_a_connection_that_breaks_is_tried_again_and_then_fails(
    site: Site, crawl: MakeCrawl, answer: Streamed
) -> None:
    site.pages = {"/": page("home", ["/broken"]), "/broken": answer}
    crawled = crawl(attempts=3)
    await crawled.run()
    assert await crawled.reasons() == {"/broken": Why.NETWORK}
    assert site.counts["/broken"] == 3


def _bomb(encoding: str) -> bytes:
    packed = gzip.compress(b"\0" * 50_000_000) if encoding == "gzip" else zlib.compress(b"\0" * 50_000_000)
    return response(packed, f"Content-Encoding: {encoding}")


@pytest.mark.parametrize("kind", ["announced", "endless", "gzip", "deflate"])
async def test_a_body_above_the_limit_is_given_up(site: Site, crawl: MakeCrawl, kind: str) -> None:
    large: dict[str, Page] = {"announced": response(b"x" * 3_000_000), "endless": _endless_body}
    site.pages = {"/": page("home", ["/large"]), "/large": large.get(kind) or _bomb(kind)}
    crawled = crawl(max_page_bytes=1_000_000)
    await crawled.run()
    assert await crawled.reasons() == {"/large": Why.TOO_LARGE}
    assert site.counts["/large"] == 1


async def test_a_body_that_is_not_what_its_encoding_says_fails(site: Site, crawl: MakeCrawl) -> None:
    twice = response(gzip.compress(gzip.compress(b"x")), "Content-Encoding: gzip, gzip")
    site.pages = {"/": page("home", ["/a", "/b"]), "/a": response(b"plain", "Content-Encoding: gzip"), "/b": twice}
    crawled = crawl()
    await crawled.run()
    assert await crawled.reasons() == {"/a": Why.BROKEN_BODY, "/b": Why.BROKEN_BODY}


def _once(first: bytes, then: bytes) -> Callable[[Asked], bytes]:
    answers = iter([first])
    return lambda asked: next(answers, then)


@pytest.mark.parametrize(
    ("status", "headers", "waits"),
    [
        (429, ["Retry-After: 120"], 120),
        (503, ["Retry-After: Wed, 25 Nov 2026 12:01:30 GMT", "Date: Wed, 25 Nov 2026 12:00:00 GMT"], 90),
        (503, [], 1),
        (500, ["Retry-After: soon"], 1),
        (502, ["Retry-After: -5"], 1),
    ],
)
async def test_a_site_that_asks_for_a_pause_gets_it(
    site: Site, crawl: MakeCrawl, status: int, headers: list[str], waits: float
) -> None:
    refusal = response(b"", *headers, status=status)
    site.pages = {"/": page("home", ["/busy", "/other"]), "/other": page("other")}
    site.pages["/busy"] = _once(refusal, page("busy"))
    crawled = crawl(max_concurrent=1)
    await crawled.run()
    assert await crawled.fetched() == {"/", "/busy", "/other"}
    assert (await crawled.pages())["/busy"].attempts == 2
    first, second = (asked.at for asked in site.log if asked.path == "/busy")
    assert second - first == pytest.approx(waits)
    # The pause is the whole host's.
    assert all(asked.at <= first or asked.at >= second for asked in site.log)


async def test_a_site_that_keeps_refusing_gets_longer_pauses_and_then_none(
    site: Site, crawl: MakeCrawl, clock: Instantly
) -> None:
    site.pages = {"/": response(b"", status=503)}
    crawled = crawl(attempts=4)
    begun = clock.now()
    await crawled.run()
    assert [asked.at - begun for asked in site.log if asked.path == "/"] == pytest.approx([0, 1, 3, 7])
    page = (await crawled.pages())["/"]
    assert (page.reason, page.status_code, page.attempts) == (Why.HTTP_STATUS, 503, 4)
    assert page.error == "the site answered 503"


async def test_a_pause_that_is_too_long_is_not_waited_for(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": response(b"", "Retry-After: 86400", status=429)}
    crawled = crawl(max_wait=timedelta(minutes=1))
    await crawled.run()
    assert site.counts["/"] == 1
    assert (await crawled.pages())["/"].error == "the site answered 429 and asks to come again in 86400 s"


async def test_a_host_that_fails_again_and_again_is_given_up(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", [f"/{n}" for n in range(40)]), "/robots.txt": response(b"", status=404)}
    site.fallback = lambda asked: response(b"", status=500)
    crawled = crawl(attempts=1, max_concurrent=1)
    summary = await crawled.run()
    assert summary.reasons == {"HTTP_STATUS": 10, "HOST_UNAVAILABLE": 30}
    assert sum(site.counts.values()) == 12


async def test_a_page_that_is_not_there_is_asked_for_once(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", ["/gone", "/secret"]), "/gone": response(b"", status=410)}
    site.pages["/secret"] = response(b"", status=403)
    crawled = crawl()
    await crawled.run()
    assert {path: page.status_code for path, page in (await crawled.pages()).items() if page.reason} == {
        "/gone": 410,
        "/secret": 403,
    }
    assert site.counts["/gone"] == site.counts["/secret"] == 1


async def test_a_host_that_nobody_answers_at_fails_by_its_robots(crawl: MakeCrawl, site: Site) -> None:
    async with asyncio.timeout(20):
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
    crawled = crawl(f"http://127.0.0.1:{port}/", attempts=2)
    await crawled.run()
    page = (await crawled.pages())["/"]
    assert page.reason is Why.ROBOTS_UNREACHABLE
    assert "the connection failed" in page.error


@pytest.mark.parametrize("seed", range(4))
async def test_responses_damaged_at_random_end_neither_the_crawl_nor_its_other_pages(
    site: Site, crawl: MakeCrawl, seed: int
) -> None:
    chance = random.Random(seed)
    whole = page("damaged", ["/x"], "Set-Cookie: a=b; Path=/", "Location: /y", "Retry-After: 1", "X-Robots-Tag: all")

    def damaged(asked: Asked) -> bytes:
        answer = bytearray(whole if chance.random() < 0.5 else redirect("/z", "Set-Cookie: c=d"))
        for _ in range(chance.randint(1, 12)):
            answer[chance.randrange(len(answer))] = chance.randrange(256)
        return bytes(answer)

    @Streamed
    async def cut_short(writer: asyncio.StreamWriter) -> None:
        writer.write(damaged(Asked("", {}, 0)))
        await writer.drain()
        writer.close()

    paths = [f"/{n}" for n in range(60)]
    site.pages = {"/": page("home", [*paths, "/last"]), "/last": page("last"), **dict.fromkeys(paths, cut_short)}
    site.pages |= {"/robots.txt": response(b"", status=404)}
    crawled = crawl(attempts=1, timeout=timedelta(seconds=20))
    await crawled.run()
    pages = await crawled.pages()
    assert {"/", *paths, "/last"} <= set(pages)
    assert all(found.state is not PageState.PENDING for found in pages.values())


async def test_hostile_html_ends_neither_the_crawl_nor_its_other_pages(site: Site, crawl: MakeCrawl) -> None:
    def hostile(asked: Asked) -> bytes:
        return {
            "/deep": response(b"<div>" * 20_000 + b"x"),
            "/attributes": response(b"<p " + b" ".join(b"a%d=1" % n for n in range(20_000)) + b">x"),
            "/unclosed": response(b"<!doctype html><a href='" + b"y" * 100_000),
            "/entities": response(b"&#0;&#xD800;&#x110000;&nonsense;" * 100),
            "/links": response(b"<a href='http://[::bad'>a</a><a href='//'>b</a><a href>c</a><a href='\xff\xfe'>d</a>"),
        }[asked.path]

    paths = ["/deep", "/attributes", "/unclosed", "/entities", "/links"]
    site.pages = {"/": page("home", [*paths, "/last"]), "/last": page("last"), **dict.fromkeys(paths, hostile)}
    crawled = crawl()
    await crawled.run()
    pages = await crawled.pages()
    assert {"/", "/last"} <= await crawled.fetched()
    assert all(pages[path].status_code == 200 for path in paths)
