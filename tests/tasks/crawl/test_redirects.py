"""Each hop of a redirect is a URL of the crawl: in its scope, by robots.txt, through the guard, once."""

from __future__ import annotations

import pytest
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.tasks.crawl.model import PageState, Why
from stationmaster_server.tasks.crawl.settings import CrawlSettings, Stay

from tests.tasks.crawl.conftest import MakeCrawl
from tests.tasks.crawl.site import Asked, Site, page, redirect, robots


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_page_is_kept_under_the_url_that_it_is_found_at(site: Site, crawl: MakeCrawl, status: int) -> None:
    site.pages = {"/": redirect("/a", status=status), "/a": redirect("b?c", status=status), "/b": page("b")}
    crawled = crawl()
    await crawled.run()
    pages = await crawled.pages()
    assert await crawled.fetched() == {"/b?c"}
    assert pages["/"].reason is pages["/a"].reason is Why.REDIRECTED
    assert pages["/"].redirect_to == site.url("/a")
    assert pages["/b?c"].depth == 0


async def test_a_page_that_many_redirect_to_is_fetched_once(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", [f"/old/{n}" for n in range(10)]), "/new": page("new")}
    site.fallback = lambda asked: redirect("/new")
    site.pages["/robots.txt"] = robots()
    crawled = crawl()
    await crawled.run()
    assert await crawled.fetched() == {"/", "/new"}
    assert site.counts["/new"] == 1


async def test_a_redirect_to_itself_or_in_a_circle_ends_as_a_loop(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {
        "/": page("home", ["/self", "/1"]),
        "/self": redirect("/self#again"),
        "/1": redirect("/2"),
        "/2": redirect("/3"),
        "/3": redirect("/1"),
    }
    crawled = crawl()
    await crawled.run()
    reasons = await crawled.reasons()
    assert reasons["/self"] is reasons["/3"] is Why.REDIRECT_LOOP
    assert (await crawled.pages())["/3"].error == f"the redirects lead back to {site.url('/1')}"
    assert site.counts["/1"] == site.counts["/self"] == 1


async def test_a_chain_is_followed_for_ten_hops(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/short/10": page("end")}
    site.fallback = lambda asked: redirect(f"{asked.path.rpartition('/')[0]}/{int(asked.path.rpartition('/')[2]) + 1}")
    site.pages["/robots.txt"] = robots()
    crawled = crawl("/short/0", "/long/0")
    await crawled.run()
    pages = await crawled.pages()
    assert pages["/short/10"].state is PageState.FETCHED
    assert pages["/long/10"].reason is Why.TOO_MANY_REDIRECTS
    assert "/long/11" not in pages


@pytest.mark.parametrize(
    "where",
    ["http://169.254.169.254/latest/", "http://10.0.0.1/", "http://[::1]/", "http://2130706433/", "http://0x7f.1/"],
)
async def test_a_redirect_to_a_private_address_is_refused_by_the_guard(
    site: Site, crawl: MakeCrawl, where: str
) -> None:
    site.pages = {"/": redirect(where)}
    only_the_site = Outbound((f"127.0.0.1:{site.port}",))
    crawled = crawl(stay=Stay.ANYWHERE, crawl={"outbound": only_the_site})
    summary = await crawled.run()
    assert summary.reasons == {"REDIRECTED": 1, "ADDRESS_REFUSED": 1}
    assert set(site.counts) == {"/", "/robots.txt"}


async def test_a_redirect_to_another_site_is_told_and_not_followed(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": redirect(f"http://localhost:{site.port}/there"), "/there": page("there")}
    crawled = crawl()
    await crawled.run()
    home = (await crawled.pages())["/"]
    assert (home.reason, home.redirect_to) == (Why.OUT_OF_SCOPE, f"http://localhost:{site.port}/there")
    assert site.counts["/there"] == 0


async def test_a_redirect_around_robots_is_not_followed(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/robots.txt": robots("User-agent: *", "Disallow: /no"), "/": redirect("/no"), "/no": page("no")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.reasons() == {"/": Why.REDIRECTED, "/no": Why.ROBOTS}


async def test_a_site_of_nothing_but_redirects_is_remembered_within_bounds(
    site: Site, crawl: MakeCrawl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CrawlSettings, "max_urls", 30)
    site.pages = {"/": page("home", [f"/{n}/0" for n in range(100)]), "/robots.txt": robots()}
    site.fallback = lambda asked: redirect(f"{asked.path.rpartition('/')[0]}/{int(asked.path.rpartition('/')[2]) + 1}")
    crawled = crawl(max_pages=2)
    await crawled.run()
    assert 50 < len(await crawled.pages()) <= 60


async def test_a_redirect_to_what_is_no_page_fails(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": redirect("javascript:alert(1)")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.reasons() == {"/": Why.HTTP_STATUS}


async def test_a_page_that_sends_for_a_cookie_is_asked_again_with_it(site: Site, crawl: MakeCrawl) -> None:
    def home(asked: Asked) -> bytes:
        return page("welcome") if "seen=1" in asked.headers.get("cookie", "") else redirect("/consent")

    site.pages = {"/": home, "/consent": redirect("/", "Set-Cookie: seen=1; Path=/")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.fetched() == {"/"}
    assert site.counts["/"] == 2


async def test_a_page_that_sets_a_cookie_and_leads_to_itself_is_asked_again(site: Site, crawl: MakeCrawl) -> None:
    def home(asked: Asked) -> bytes:
        return page("welcome") if "cookie" in asked.headers else redirect("/", "Set-Cookie: seen=1")

    site.pages = {"/": home}
    crawled = crawl()
    await crawled.run()
    assert await crawled.fetched() == {"/"}


async def test_a_site_that_takes_no_cookie_and_leads_in_a_circle_ends(site: Site, crawl: MakeCrawl) -> None:
    counter = iter(range(1000))
    site.pages = {"/": lambda asked: redirect("/", f"Set-Cookie: n={next(counter)}")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.reasons() == {"/": Why.REDIRECT_LOOP}
    assert site.counts["/"] == 11
