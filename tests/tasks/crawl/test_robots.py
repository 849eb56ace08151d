"""robots.txt is asked for once and obeyed."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from stationmaster_server.tasks.crawl.model import PageState, Why
from stationmaster_server.tasks.crawl.robots import Verdict, parse

from tests.tasks.crawl.conftest import MakeCrawl
from tests.tasks.crawl.site import Site, page, redirect, response, robots

UA = ("StationmasterBot/0.1",)


async def test_what_robots_forbid_is_not_asked_for(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {
        "/robots.txt": robots("User-agent: *", "Disallow: /private", "Allow: /private/open$"),
        "/": page("home", ["/private/a", "/private/open", "/public"]),
    }
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl()
    await crawled.run()
    assert await crawled.fetched() == {"/", "/private/open", "/public"}
    assert await crawled.reasons() == {"/private/a": Why.ROBOTS}
    assert site.counts["/private/a"] == 0
    assert site.counts["/robots.txt"] == 1


async def test_robots_are_asked_for_once_however_many_pages_begin_together(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/robots.txt": robots("User-agent: *", "Disallow:")}
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl(*(f"/{n}" for n in range(20)), max_concurrent=20, max_concurrent_per_host=8)
    await crawled.run()
    assert site.counts["/robots.txt"] == 1
    assert len(await crawled.fetched()) == 20


async def test_a_crawl_delay_is_kept(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/robots.txt": robots("User-agent: *", "Crawl-delay: 7"), "/": page("home", ["/a", "/b", "/c"])}
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl(max_concurrent=1)
    await crawled.run()
    times = [asked.at for asked in site.log]
    assert [later - sooner for sooner, later in pairwise(times)] == pytest.approx([7, 7, 7, 7])


async def test_a_crawl_delay_shorter_than_the_crawl_s_own_changes_nothing(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/robots.txt": robots("User-agent: *", "Crawl-delay: 0.5"), "/": page("home", ["/a"])}
    crawled = crawl(max_concurrent=1, rate_limit=timedelta(seconds=3))
    await crawled.run()
    times = [asked.at for asked in site.log]
    assert [later - sooner for sooner, later in pairwise(times)] == pytest.approx([3, 3])


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_site_whose_robots_cannot_be_had_is_not_crawled(site: Site, crawl: MakeCrawl, status: int) -> None:
    site.pages = {"/robots.txt": response(b"", status=status), "/": page("home")}
    crawled = crawl(attempts=3)
    await crawled.run()
    assert site.counts == {"/robots.txt": 3}
    found = (await crawled.pages())["/"]
    assert (found.state, found.reason) == (PageState.FAILED, Why.ROBOTS_UNREACHABLE)
    assert str(status) in found.error


async def test_robots_that_come_at_the_second_attempt_count(site: Site, crawl: MakeCrawl) -> None:
    answers = iter([response(b"", status=503)])
    forbid = robots("User-agent: *", "Disallow: /")
    site.pages = {"/robots.txt": lambda asked: next(answers, forbid), "/": page("home")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.reasons() == {"/": Why.ROBOTS}


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_site_without_robots_is_crawled(site: Site, crawl: MakeCrawl, status: int) -> None:
    site.pages = {"/robots.txt": response(b"", status=status), "/": page("home")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.fetched() == {"/"}


async def test_robots_behind_a_redirect_count(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {
        "/robots.txt": redirect("/elsewhere.txt"),
        "/elsewhere.txt": robots("User-agent: *", "Disallow: /"),
        "/": page("home"),
    }
    crawled = crawl()
    await crawled.run()
    assert await crawled.reasons() == {"/": Why.ROBOTS}


async def test_robots_that_redirect_for_ever_are_none(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/robots.txt": redirect("/robots.txt"), "/": page("home")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.fetched() == {"/"}
    assert site.counts["/robots.txt"] == 6


async def test_robots_that_lead_to_a_private_address_do_not_open_the_site(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/robots.txt": redirect("http://169.254.169.254/robots.txt"), "/": page("home")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.reasons() == {"/": Why.ADDRESS_REFUSED}


async def test_endless_robots_are_read_as_far_as_the_standard_asks(site: Site, crawl: MakeCrawl) -> None:
    lines = ["User-agent: *", "Disallow: /early", *(f"# {'x' * 1000}" for _ in range(600)), "Disallow: /late"]
    site.pages = {"/robots.txt": robots(*lines), "/": page("home", ["/early", "/late"]), "/late": page("late")}
    crawled = crawl(max_page_bytes=2000)
    await crawled.run()
    assert await crawled.fetched() == {"/", "/late"}


async def test_no_more_robots_are_remembered_than_there_is_room_for(
    site: Site, crawl: MakeCrawl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stationmaster_server.tasks.crawl.robots._MOST_KEPT", 1500)
    site.pages = {"/robots.txt": robots("User-agent: *", "Disallow: /no")}
    site.fallback = lambda asked: page(f"page {asked.path}")
    there = f"http://localhost:{site.port}"
    crawled = crawl("/1", f"{there}/2", "/no", f"{there}/no", "/3", max_concurrent=1)
    await crawled.run()
    assert await crawled.fetched() == {"/1", "/2", "/3"}
    assert 2 <= site.counts["/robots.txt"] <= 5


def test_all_user_agents_of_a_crawl_must_be_allowed() -> None:
    agents = ("Mozilla/5.0 (compatible; GoodBot/1.0)", "Mozilla/5.0 (compatible; BadBot/1.0)")
    rules = parse(
        b"User-agent: BadBot\nDisallow: /x\nCrawl-delay: 9\n\nUser-agent: *\nCrawl-delay: 2", agents, "http://h/"
    )
    assert rules.verdict("http://h/x") is Verdict.DISALLOWED
    assert rules.verdict("http://h/y") is Verdict.ALLOWED
    assert rules.crawl_delay == 9


def test_rules_for_others_are_not_ours() -> None:
    text = b"User-agent: Googlebot\nUser-agent: Other*\nDisallow: /\n\nUser-agent: stationmasterbot/2\nDisallow: /us\n"
    rules = parse(text, UA, "http://h/")
    assert rules.verdict("http://h/") is Verdict.ALLOWED
    assert rules.verdict("http://h/us") is Verdict.DISALLOWED


def test_a_request_rate_is_a_delay() -> None:
    assert parse(b"User-agent: *\nRequest-rate: 1/20", UA, "http://h/").crawl_delay == 20


def test_a_delay_of_more_than_ten_minutes_means_not_at_all() -> None:
    assert parse(b"User-agent: *\nCrawl-delay: 601", UA, "http://h/").verdict("http://h/") is Verdict.DISALLOWED


def test_sitemaps_are_read_whoever_they_are_for() -> None:
    rules = parse(
        b"Sitemap: /a.xml\nUser-agent: x\nDisallow: /\nSitemap: http://h/b.xml\nSitemap: ftp://h/c",
        UA,
        "http://h/robots.txt",
    )
    assert rules.sitemaps == ("http://h/a.xml", "http://h/b.xml")


def test_many_agents_with_many_rules_do_not_multiply() -> None:
    agents = "".join(f"User-agent: bot-{n}\n" for n in range(12_000))
    rules = "".join(f"Disallow: /{n}\n" for n in range(12_000))
    parsed = parse((agents + rules).encode(), UA, "http://h/")
    assert parsed.parsed is not None
    assert len(parsed.parsed._user_agents) == 1
    assert parsed.verdict("http://h/5") is Verdict.ALLOWED


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"<html>404", b"Disallow: /", b"User-agent:\nDisallow: /"])
def test_what_is_no_robots_file_forbids_nothing(body: bytes) -> None:
    assert parse(body, UA, "http://h/").verdict("http://h/a") is Verdict.ALLOWED
