"""A crawl finds the pages of a site, each once, within its limits."""

from __future__ import annotations

import asyncio

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import LeaseLost
from stationmaster_server.tasks.crawl import page_store
from stationmaster_server.tasks.crawl.extract import Extract
from stationmaster_server.tasks.crawl.model import PageState, Why
from stationmaster_server.tasks.crawl.settings import Stay

from tests.tasks.crawl.conftest import MakeCrawl
from tests.tasks.crawl.site import Asked, Site, Streamed, page, redirect, response
from tests.waiting import until


async def test_every_page_that_is_linked_is_fetched_once(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {
        "/": page("home", ["/a", "b?x=1&y=2", "/a#part", "./a"]),
        "/a": page("a", ["/", "/b?x=1&y=2", "/missing"]),
        "/b": page("b", ["/a"]),
    }
    crawled = crawl()
    summary = await crawled.run()
    assert await crawled.fetched() == {"/", "/a", "/b?x=1&y=2"}
    assert {path: count for path, count in site.counts.items() if path != "/robots.txt"} == {
        "/": 1,
        "/a": 1,
        "/b?x=1&y=2": 1,
        "/missing": 1,
    }
    assert (summary.fetched, summary.failed, summary.skipped) == (3, 1, 0)
    assert summary.reasons == {"HTTP_STATUS": 1}
    assert crawled.progress[-1].fetched == 3


async def test_a_page_is_kept_with_its_title_and_its_text_as_markdown(site: Site, crawl: MakeCrawl) -> None:
    canonical = '<link rel="canonical" href="/the-one">'
    site.pages = {"/": page("Signal box", head=canonical), "/the-one": page("other")}
    crawled = crawl()
    await crawled.run()
    home = (await crawled.pages())["/"]
    assert home.title == "Signal box"
    assert home.markdown.startswith("# Signal box\n\nWhat this page says about Signal box")
    assert home.canonical_url == site.url("/the-one")
    assert home.status_code == 200
    assert home.content_type == "text/html; charset=utf-8"
    assert home.size_bytes > 100
    assert home.fetched_at is not None
    assert len(home.content_hash or b"") == 32
    assert "/the-one" in await crawled.fetched()


async def test_links_are_followed_to_the_depth_and_no_farther(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {f"/{n}": page(f"number {n}", [f"/{n + 1}"]) for n in range(10)}
    crawled = crawl("/0", max_depth=2)
    await crawled.run()
    assert await crawled.fetched() == {"/0", "/1", "/2"}
    assert {page.depth for page in (await crawled.pages()).values()} == {0, 1, 2}


async def test_no_more_pages_are_asked_for_than_the_limit_says(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", [f"/{n}" for n in range(50)])}
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl(max_pages=7)
    summary = await crawled.run()
    assert summary.fetched == 7
    assert summary.reasons == {"PAGE_LIMIT": 44}
    assert sum(site.counts.values()) == 7 + 1  # robots.txt


async def test_redirects_and_pages_that_robots_forbid_do_not_use_up_the_limit(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {
        "/robots.txt": response(b"User-agent: *\nDisallow: /no", kind="text/plain"),
        "/": redirect("/home"),
        "/home": page("home", ["/no", "/yes"]),
        "/yes": page("yes"),
    }
    crawled = crawl(max_pages=2)
    await crawled.run()
    assert await crawled.fetched() == {"/home", "/yes"}


async def test_other_sites_are_not_fetched_unless_that_was_asked_for(site: Site, crawl: MakeCrawl) -> None:
    elsewhere = f"http://localhost:{site.port}/there"
    site.pages = {"/": page("home", [elsewhere]), "/there": page("there")}
    near, far = crawl(), crawl(stay=Stay.ANYWHERE)
    await near.run()
    await far.run()
    assert await near.fetched() == {"/"}
    assert await far.fetched() == {"/", "/there"}


async def test_a_start_url_on_a_private_address_is_refused_by_the_guard(site: Site, crawl: MakeCrawl) -> None:
    crawled = crawl(
        f"http://127.0.0.2:{site.port}/", "http://169.254.169.254/latest/meta-data/", f"http://[::1]:{site.port}/"
    )
    summary = await crawled.run()
    assert summary.reasons == {"ADDRESS_REFUSED": 3}
    assert not site.log
    assert all("outbound.allow" in page.error for page in (await crawled.pages()).values())


async def test_the_same_text_under_another_url_is_recorded_as_a_duplicate(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {
        "/": page("home", ["/a?s=1", "/a?s=2"]),
        "/a": lambda asked: page("a", head=f"<!-- session {asked.path} -->"),
    }
    crawled = crawl(max_concurrent=1)
    summary = await crawled.run()
    assert summary.reasons == {"DUPLICATE": 1}
    second = (await crawled.pages())["/a?s=2"]
    assert second.duplicate_of == site.url("/a?s=1")
    assert not second.markdown


async def test_pages_that_say_so_are_not_kept_or_not_followed(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {
        "/": page("home", ["/noindex", "/nofollow", "/none", "/header"]),
        "/noindex": page("noindex", ["/behind-noindex"], head='<meta name="ROBOTS" content="NoIndex">'),
        "/nofollow": page("nofollow", ["/behind-nofollow"], head='<meta name="robots" content="nofollow, noarchive">'),
        "/none": page("none", ["/behind-none"], head='<meta name="robots" content="none">'),
        "/header": page("header", ["/behind-header"], "X-Robots-Tag: noindex, nofollow"),
    }
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl()
    await crawled.run()
    assert await crawled.fetched() == {"/", "/nofollow", "/behind-noindex"}
    assert await crawled.reasons() == dict.fromkeys(("/noindex", "/none", "/header"), Why.NOINDEX)
    assert all(not page.markdown for page in (await crawled.pages()).values() if page.reason is Why.NOINDEX)


async def test_a_link_marked_nofollow_is_not_followed(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": response(b'<a href="/ad" rel="sponsored NoFollow">ad</a> <a href="/b">b</a>'), "/b": page("b")}
    crawled = crawl()
    await crawled.run()
    assert set(await crawled.pages()) == {"/", "/b"}


async def test_a_base_is_what_links_count_from(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", ["x"], head='<base href="/deep/down/">'), "/deep/down/x": page("x")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.fetched() == {"/", "/deep/down/x"}


async def test_what_is_no_text_is_skipped_without_its_body(site: Site, crawl: MakeCrawl) -> None:
    @Streamed
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: 100000000\r\n\r\n%PDF")
        await asyncio.Event().wait()

    site.pages = {
        "/": page("home", ["/a.pdf", "/img"]),
        "/a.pdf": endless,
        "/img": response(b"\x89PNG", kind="image/png"),
    }
    crawled = crawl()
    await crawled.run()
    assert await crawled.reasons() == {"/a.pdf": Why.CONTENT_TYPE, "/img": Why.CONTENT_TYPE}


async def test_text_markdown_and_xml_are_kept_as_they_are(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {
        "/": page("home", ["/t", "/m", "/x", "/untyped", "/binary"]),
        "/t": response(b"plain\n  text", kind="text/plain"),
        "/m": response(b"# Head\n\n*em*", kind="text/markdown"),
        "/x": response(b"<a>1</a>", kind="application/atom+xml"),
        "/untyped": response(b"<!DOCTYPE html><title>U</title><p>Some words.", kind=""),
        "/binary": response(b"\0\1\2", kind=""),
    }
    crawled = crawl()
    await crawled.run()
    pages = await crawled.pages()
    assert pages["/t"].markdown == "plain\n  text"
    assert pages["/m"].markdown == "# Head\n\n*em*"
    assert pages["/x"].markdown == "```xml\n<a>1</a>\n```"
    assert pages["/untyped"].title == "U"
    assert pages["/binary"].reason is Why.CONTENT_TYPE


async def test_a_site_with_endless_links_is_remembered_within_bounds(site: Site, crawl: MakeCrawl) -> None:
    def many(asked: Asked) -> bytes:
        return page(f"page {asked.path}", [f"{asked.path}{n}" for n in range(600)])

    site.fallback = many
    site.pages = {"/robots.txt": response(b"", kind="text/plain")}
    crawled = crawl(max_pages=5)
    summary = await crawled.run()
    assert summary.full
    assert len(await crawled.pages()) == 1000
    assert summary.fetched == 5


async def test_a_calendar_that_never_ends_is_left_at_the_limits(site: Site, crawl: MakeCrawl) -> None:
    def day(asked: Asked) -> bytes:
        number = int(asked.path.rpartition("=")[2] or 0)
        return page(f"day {number}", [f"/calendar?day={number + 1}", f"/calendar?day={number - 1}"])

    site.pages = {"/calendar": day}
    crawled = crawl("/calendar?day=0", max_depth=50, max_pages=20)
    summary = await crawled.run()
    assert summary.fetched == 20


async def test_a_path_that_repeats_itself_is_left_after_a_few_rounds(site: Site, crawl: MakeCrawl) -> None:
    site.fallback = lambda asked: page(f"text of {len(asked.path)}", ["a/b/"])
    site.pages = {"/robots.txt": response(b"", kind="text/plain")}
    crawled = crawl(max_depth=50, max_pages=1000)
    summary = await crawled.run()
    assert summary.fetched == 4
    assert max(site.counts) == "/robots.txt"
    assert await crawled.fetched() == {"/", "/a/b/", "/a/b/a/b/", "/a/b/a/b/a/b/"}


async def test_a_page_that_cannot_be_read_fails_alone(site: Site, crawl: MakeCrawl) -> None:
    async def extract(body: bytes, content_type: str, url: str) -> Extract:
        if url.endswith("/bad"):
            raise RecursionError
        return Extract(markdown=url, links=(site.url("/bad"), site.url("/good")))

    site.pages = {"/": page(), "/bad": page(), "/good": page()}
    crawled = crawl(crawl={"extract": extract})
    await crawled.run()
    assert await crawled.fetched() == {"/", "/good"}
    assert await crawled.reasons() == {"/bad": Why.EXTRACTION}


async def test_a_crawl_that_was_cancelled_goes_on_and_fetches_no_page_twice(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", [f"/{n}" for n in range(30)])}
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl(max_concurrent=2)
    first = asyncio.create_task(crawled.crawler().run())

    async def some() -> bool:
        return len(crawled.progress) >= 5

    await until(some)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    recorded = {path for path, found in (await crawled.pages()).items() if found.state is not PageState.PENDING}
    before = len(site.log)
    assert len(recorded) < 31
    await crawled.run()
    assert await crawled.fetched() == {"/", *(f"/{n}" for n in range(30))}
    assert not recorded & {asked.path for asked in site.log[before:]}


async def test_a_crawl_that_is_closed_again_and_again_ends_and_fetches_no_page_twice(
    site: Site, crawl: MakeCrawl
) -> None:
    site.pages = {"/": page("home", [f"/{n}" for n in range(8)])}
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl(max_concurrent=3)
    runs = 0
    summary = None
    while summary is None:
        crawler = crawled.crawler()
        crawler.close()
        summary = await crawler.run()
        runs += 1
        assert len(await crawled.fetched()) == min(runs, 9)
    assert runs == 10
    assert summary.fetched == 9
    assert {count for path, count in site.counts.items() if path != "/robots.txt"} == {1}


async def test_a_crawler_that_was_replaced_writes_nothing_more(site: Site, crawl: MakeCrawl) -> None:
    held = asyncio.Event()

    @Streamed
    async def slow(writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.write(page("slow", ["/from-the-stalled-one"]))

    site.pages = {"/": slow}
    crawled = crawl()
    stalled = asyncio.create_task(crawled.crawler().run())

    async def asked() -> bool:
        return site.counts["/"] == 1

    await until(asked)
    site.pages["/"] = page("quick")
    await crawled.run()
    held.set()
    with pytest.raises(LeaseLost):
        await stalled
    assert set(await crawled.pages()) == {"/"}
    assert (await crawled.pages())["/"].title == "quick"


async def test_a_finished_crawl_that_is_run_again_fetches_nothing(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", ["/a"]), "/a": page("a")}
    crawled = crawl()
    first = await crawled.run()
    before = site.counts
    assert await crawled.run() == first
    assert site.counts == before


async def test_what_is_deleted_is_gone(site: Site, crawl: MakeCrawl, database: Database) -> None:
    site.pages = {"/": page("home")}
    crawled = crawl()
    await crawled.run()
    async with database.system() as tx:
        await page_store.delete(tx, crawled.tenant.organization_id, crawled.execution_id)
    assert not await crawled.pages()
