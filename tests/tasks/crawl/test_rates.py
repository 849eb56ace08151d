"""Hosts are asked as fast as the settings say, by the site's own log and a clock of the test; and by turns."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
from stationmaster_server.tasks.crawl.hosts import Hosts
from stationmaster_server.tasks.crawl.settings import Stay

from tests.tasks.crawl.conftest import Instantly, MakeCrawl
from tests.tasks.crawl.site import Site, Streamed, page, robots
from tests.waiting import until


async def test_requests_to_a_host_are_as_far_apart_as_the_settings_say(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home", [f"/{n}" for n in range(10)])}
    site.fallback = lambda asked: page(f"page {asked.path}")
    crawled = crawl(rate_limit=timedelta(seconds=2), max_concurrent=1, sitemaps=True)
    await crawled.run()
    times = [asked.at for asked in site.log]
    assert len(times) == 13  # robots.txt, the sitemap and 11 pages
    assert [later - sooner for sooner, later in pairwise(times)] == pytest.approx([2] * 12)


@pytest.mark.parametrize(("overall", "per_host", "expected"), [(6, 2, 2), (3, 8, 3), (1, 8, 1)])
async def test_no_more_pages_are_under_way_at_once_than_the_settings_say(
    site: Site, crawl: MakeCrawl, overall: int, per_host: int, expected: int
) -> None:
    under_way = 0
    most = 0
    open_gate = asyncio.Event()

    @Streamed
    async def counted(writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await open_gate.wait()
        under_way -= 1
        writer.write(page("counted"))

    site.pages = {f"/{n}": counted for n in range(12)}
    crawled = crawl(*site.pages, max_concurrent=overall, max_concurrent_per_host=per_host)
    running = asyncio.create_task(crawled.run())

    async def full() -> bool:
        return under_way == expected

    await until(full)
    for _ in range(50):
        await asyncio.sleep(0)
    open_gate.set()
    await running
    assert most == expected


async def test_one_slow_host_does_not_hold_up_the_others(site: Site, crawl: MakeCrawl) -> None:
    held = asyncio.Event()

    @Streamed
    async def slow(writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.write(page("slow"))

    elsewhere = [f"http://localhost:{site.port}/quick/{n}" for n in range(10)]
    site.pages = {f"/slow/{n}": slow for n in range(20)}
    site.pages |= {f"/quick/{n}": page(f"quick {n}") for n in range(10)}
    slow_ones = [path for path in site.pages if path.startswith("/slow")]
    crawled = crawl(*slow_ones, *elsewhere, stay=Stay.ANYWHERE, max_concurrent=4, max_concurrent_per_host=2)
    running = asyncio.create_task(crawled.run())

    async def quick_ones_are_there() -> bool:
        return len(await crawled.fetched()) == 10

    await until(quick_ones_are_there, seconds=30)
    held.set()
    await running


async def test_each_host_has_its_own_rate(site: Site, crawl: MakeCrawl) -> None:
    site.pages = {"/robots.txt": robots()}
    site.fallback = lambda asked: page(f"page {asked.path}")
    there = f"http://localhost:{site.port}"
    crawled = crawl("/1", "/2", f"{there}/3", f"{there}/4", rate_limit=timedelta(seconds=10), max_concurrent=1)
    await crawled.run()
    for host in ("127.0.0.1", "localhost"):
        times = [asked.at for asked in site.log if asked.headers["host"].startswith(host)]
        assert len(times) == 3
        assert all(later - sooner >= 10 for sooner, later in pairwise(times))
    assert site.log[-1].at - site.log[0].at < 50  # together they would take that long


async def test_turns_of_a_host_are_apart_though_many_wait() -> None:
    clock = Instantly()
    hosts = Hosts(3.0, 8, clock)
    starts: list[float] = []

    async def one() -> None:
        before = clock.now()
        await hosts.turn("h")
        starts.append(max(before, clock.now()))

    for _ in range(5):
        await one()
    assert [later - sooner for sooner, later in pairwise(starts)] == pytest.approx([3] * 4)


async def test_a_rest_moves_those_that_wait_already() -> None:
    clock = Instantly()
    hosts = Hosts(1.0, 8, clock)
    await hosts.turn("h")
    waiting = asyncio.create_task(hosts.turn("h"))
    await asyncio.sleep(0)
    hosts.rest("h", 60)
    begun = clock.now()
    await waiting
    assert clock.now() == pytest.approx(begun + 60)


def test_the_host_that_is_ready_first_is_picked_and_a_full_one_is_not() -> None:
    hosts = Hosts(1.0, 1, Instantly())
    hosts.rest("a", 10)
    assert hosts.pick(["a", "b"]) == "b"
    hosts.enter("b")
    assert hosts.pick(["a", "b"]) == "a"
    hosts.enter("a")
    assert hosts.pick(["a", "b"]) is None
    hosts.leave("b")
    assert hosts.pick(["a", "b"]) == "b"
