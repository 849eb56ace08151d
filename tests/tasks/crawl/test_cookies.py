"""Cookies: those given, those set, kept over a restart, and given to nobody else. User agents by turns."""

from __future__ import annotations

import asyncio

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.tasks.crawl.cookies import dump, jar_of
from stationmaster_server.tasks.crawl.settings import Cookie, CrawlSettings, Stay

from tests.tasks.crawl.conftest import MakeCrawl
from tests.tasks.crawl.site import Asked, Site, Streamed, page, response


def _needs_login(asked: Asked) -> bytes:
    if "login=yes" not in asked.headers.get("cookie", ""):
        return response(b"", status=403)
    return page(f"inside {asked.path}", [f"{asked.path}x"])


async def test_cookies_of_the_settings_are_sent_to_the_start_hosts_only(site: Site, crawl: MakeCrawl) -> None:
    there = f"http://localhost:{site.port}/there"
    site.pages = {"/": page("home", [there]), "/there": page("there")}
    crawled = crawl(cookies=(Cookie("a", "1"), Cookie("b", "2", path="/other")), stay=Stay.ANYWHERE)
    await crawled.run()
    sent = {asked.path: asked.headers.get("cookie") for asked in site.log if asked.path != "/robots.txt"}
    assert sent == {"/": "a=1", "/there": None}


async def test_a_cookie_may_name_its_domain(site: Site, crawl: MakeCrawl) -> None:
    there = f"http://localhost:{site.port}/there"
    site.pages = {"/": page("home", [there]), "/there": page("there")}
    crawled = crawl(cookies=(Cookie("a", "1", domain="localhost"),), stay=Stay.ANYWHERE)
    await crawled.run()
    sent = {asked.path: asked.headers.get("cookie") for asked in site.log if asked.path != "/robots.txt"}
    assert sent == {"/": None, "/there": "a=1"}


async def test_cookies_that_the_site_sets_are_sent_back(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", ["/in"], "Set-Cookie: login=yes; Path=/"), "/in": _needs_login}
    crawled = crawl()
    await crawled.run()
    assert "/in" in await crawled.fetched()


async def test_cookies_outlive_the_crawler(site: Site, crawl: MakeCrawl, database: Database) -> None:
    held = asyncio.Event()

    @Streamed
    async def never(writer: asyncio.StreamWriter) -> None:
        held.set()
        await asyncio.Event().wait()

    site.pages = {"/": page("home", ["/in"], "Set-Cookie: login=yes; Path=/"), "/in": never}
    crawled = crawl(max_depth=1)
    first = asyncio.create_task(crawled.crawler().run())
    await held.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    site.pages["/in"] = _needs_login
    await crawled.run()
    assert await crawled.fetched() == {"/", "/in"}
    assert site.counts["/"] == 1
    async with database.system(autocommit=True) as tx:
        assert await tx.fetchval("SELECT cookies FROM crawl_runs") == []


async def test_a_site_cannot_fill_the_jar(site: Site, crawl: MakeCrawl) -> None:
    many = [f"Set-Cookie: c{n}=v" for n in range(700)]
    site.pages = {
        "/": page("home", ["/big", "/last"], *many),
        "/big": page("big", [], f"Set-Cookie: c0={'x' * 5000}"),
        "/last": page("last"),
    }
    crawled = crawl(max_concurrent=1)
    await crawled.run()
    sent = next(asked.headers["cookie"] for asked in site.log if asked.path == "/last")
    assert len(sent.split("; ")) == 500
    assert "xxx" not in sent


async def test_a_cookie_that_cannot_be_sent_back_is_not_kept(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", ["/a"], "Set-Cookie: bad=\u00e9", "Set-Cookie: good=1"), "/a": page("a")}
    crawled = crawl()
    await crawled.run()
    assert await crawled.fetched() == {"/", "/a"}
    assert next(asked.headers["cookie"] for asked in site.log if asked.path == "/a") == "good=1"


def test_what_is_kept_of_a_jar_makes_the_same_jar() -> None:
    jar = jar_of((Cookie("a", "1"), Cookie("b", "2", domain="example.com", path="/x")), ["h", "127.0.0.1"], [])
    assert dump(jar_of((), [], dump(jar))) == dump(jar)


def test_secrets_of_settings_do_not_show() -> None:
    settings = CrawlSettings(("http://h/",), cookies=(Cookie("session", "very-secret"),))
    assert "very-secret" not in repr(settings)


async def test_user_agents_take_turns(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", [f"/{n}" for n in range(8)])}
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl(user_agents=("One/1", "Two/2", "Three/3"))
    await crawled.run()
    agents = [asked.headers["user-agent"] for asked in site.log]
    assert {agent: agents.count(agent) for agent in agents} == pytest.approx(dict.fromkeys(set(agents), 10 / 3), abs=1)
    assert set(agents) == {"One/1", "Two/2", "Three/3"}
