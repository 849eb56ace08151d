"""Sitemaps bring pages that nothing links to, within bounds."""

from __future__ import annotations

import gzip

import pytest
from stationmaster_server.tasks.crawl.model import Why
from stationmaster_server.tasks.crawl.sitemaps import read

from tests.tasks.crawl.conftest import MakeCrawl
from tests.tasks.crawl.site import Asked, Site, page, response, robots, sitemap


async def test_the_pages_of_a_sitemap_are_fetched(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home"), "/sitemap.xml": sitemap([site.url("/a"), site.url("/b?x=1&y=2")])}
    site.pages |= {"/a": page("a"), "/b": page("b")}
    crawled = crawl(sitemaps=True)
    await crawled.run()
    assert await crawled.fetched() == {"/", "/a", "/b?x=1&y=2"}
    assert (await crawled.pages())["/a"].depth == 1


async def test_an_index_of_sitemaps_that_robots_name_is_followed(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {
        "/robots.txt": robots(f"Sitemap: {site.url('/index.xml')}", "User-agent: *", "Disallow: /hidden"),
        "/index.xml": sitemap([site.url("/one.xml.gz"), site.url("/two.txt"), site.url("/hidden.xml")], index=True),
        "/one.xml.gz": sitemap([site.url("/zipped")], zipped=True),
        "/two.txt": response(f"{site.url('/text')}\n\n{site.url('/hidden')}\n".encode(), kind="text/plain"),
        "/hidden.xml": sitemap([site.url("/from-hidden")]),
        "/": page("home"),
    }
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl(sitemaps=True)
    await crawled.run()
    assert await crawled.fetched() == {"/", "/zipped", "/text"}
    assert await crawled.reasons() == {"/hidden": Why.ROBOTS}
    assert site.counts["/sitemap.xml"] == site.counts["/hidden.xml"] == 0


async def test_a_site_without_sitemap_is_crawled_by_its_links(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", ["/a"]), "/a": page("a")}
    crawled = crawl(sitemaps=True)
    await crawled.run()
    assert await crawled.fetched() == {"/", "/a"}


async def test_a_sitemap_brings_no_other_sites_and_nothing_that_is_excluded(site: Site, crawl: MakeCrawl) -> None:
    listed = [site.url("/a"), site.url("/old/b"), "http://localhost/x", "http://169.254.169.254/", "file:///etc/passwd"]
    site.pages = {"/": page("home"), "/sitemap.xml": sitemap(listed), "/a": page("a")}
    crawled = crawl(sitemaps=True, exclude=("/old/*",))
    await crawled.run()
    assert set(await crawled.pages()) == {"/", "/a"}


async def test_indexes_that_name_each_other_or_themselves_end(site: Site, crawl: MakeCrawl) -> None:
    def index(asked: Asked) -> bytes:
        return sitemap([site.url(f"{asked.path}{n}") for n in range(40)] + [site.url("/sitemap.xml")], index=True)

    site.pages = {"/": page("home"), "/robots.txt": robots()}
    site.fallback = index
    crawled = crawl(sitemaps=True)
    await crawled.run()
    assert await crawled.fetched() == {"/"}
    assert sum(site.counts.values()) == 50 + 2


async def test_a_sitemap_of_more_urls_than_a_crawl_remembers_is_read_so_far(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home"), "/sitemap.xml": sitemap(site.url(f"/{n}") for n in range(5000))}
    site.fallback = lambda asked: page(f"page {asked.path}")
    site.pages["/robots.txt"] = robots()
    crawled = crawl(sitemaps=True, max_pages=3)
    summary = await crawled.run()
    assert (summary.fetched, summary.full) == (3, True)
    assert len(await crawled.pages()) == 1000


async def test_a_sitemap_bomb_is_cut(site: Site, crawl: MakeCrawl) -> None:
    bomb = gzip.compress(b"<urlset><url><loc>" + site.url("/a").encode() + b"</loc>" + b" " * 100_000_000)
    site.pages = {"/": page("home"), "/sitemap.xml": response(bomb, kind="application/gzip"), "/a": page("a")}
    crawled = crawl(sitemaps=True)
    await crawled.run()
    assert await crawled.fetched() == {"/", "/a"}


async def test_sitemaps_are_read_once_though_the_crawl_is_run_again(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home"), "/sitemap.xml": sitemap([site.url("/a")]), "/a": page("a")}
    crawled = crawl(sitemaps=True)
    await crawled.run()
    await crawled.run()
    assert site.counts["/sitemap.xml"] == 1


def test_entities_are_not_expanded() -> None:
    text = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><urlset><url><loc>http://h/&e;?a=1&amp;b</loc></url>'
    assert read(text.encode(), "http://h/", 10) == (False, ["http://h/&e;?a=1&b"])


@pytest.mark.parametrize(
    ("body", "listed"),
    [
        (b"<urlset><url><loc><![CDATA[ http://h/a ]]></loc></url></urlset>", ["http://h/a"]),
        (b"<urlset><url><LOC>\n http://h/a \n</LOC><image:loc>http://h/i.png</image:loc>", ["http://h/a"]),
        (b"\xef\xbb\xbf<?xml version='1.0'?><urlset><url><loc>/a</loc>", ["http://h/a"]),
        (b"\x1f\x8bnot gzip at all", []),
        (b"", []),
        (b"\n" * 200_000 + b"http://h/a", ["http://h/a"]),
        (b"<loc>" + b" " * 500_000, []),
    ],
)
def test_broken_sitemaps_give_what_they_can(body: bytes, listed: list[str]) -> None:
    assert read(body, "http://h/sitemap.xml", 10) == (False, listed)
