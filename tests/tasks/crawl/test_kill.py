"""A crawler that is killed, again and again: the next one goes on, and no page that was recorded is fetched again."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import pytest
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client.structs import values
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.tasks.crawl import page_store
from stationmaster_server.tasks.crawl.model import PageState
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import StartServer
from tests.tasks.crawl.site import Asked, Site, page, redirect, robots, sitemap
from tests.waiting import until

DOOMED = Path(__file__).with_name("doomed_crawler.py")
PAGES = 50


def _tree(asked: Asked) -> bytes:
    """Pages that each link to two more and to earlier ones; some of them by way of a redirect."""
    number = int(asked.path.rpartition("/")[2] or 0)
    if asked.path.startswith("/moved/"):
        return redirect(f"/p/{number}")
    onward = [f"/moved/{n}" if n % 5 == 0 else f"/p/{n}" for n in (2 * number + 1, 2 * number + 2) if n < PAGES]
    return page(f"page {number}", [*onward, f"/p/{number // 2}"])


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
async def test_after_kill_9_at_any_point_every_page_is_found_and_none_that_was_recorded_is_fetched_again(
    site: Site, database: Database, database_url: str, tenant: Tenant, seed: int
) -> None:
    chance = random.Random(seed)
    execution_id = new_id()
    site.pages = {"/robots.txt": robots(), "/sitemap.xml": sitemap([site.url(f"/p/{PAGES - 1}")])}
    site.fallback = _tree

    async def recorded() -> set[str]:
        async with database.system(autocommit=True) as tx:
            pages = await page_store.pages(tx, tenant.organization_id, execution_id, limit=10_000)
        return {"/" + page.url.split("/", 3)[3] for page in pages if page.state is not PageState.PENDING}

    arguments = (str(DOOMED), database_url, str(tenant.organization_id), str(execution_id), site.url("/p/0"))
    kills = 0
    while True:
        before = await recorded()
        seen = len(site.log)
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments)
        wanted = seen + chance.randint(1, 18)

        async def far_enough(process: asyncio.subprocess.Process = process, wanted: int = wanted) -> bool:
            return process.returncode is not None or len(site.log) >= wanted

        await until(far_enough, seconds=300)
        if kills < 4 and process.returncode is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        code = await asyncio.wait_for(process.wait(), 300)
        again = before & {asked.path for asked in site.log[seen:]}
        assert not again, f"recorded before kill {kills}, and fetched again"
        if code == 0:
            break
    assert kills >= 2
    done = await recorded()
    assert {path for path in done if path.startswith("/p/")} == {f"/p/{n}" for n in range(PAGES)}
    async with database.system(autocommit=True) as tx:
        counts = await page_store.count(tx, tenant.organization_id, execution_id)
    assert counts.states == {"PENDING": 0, "FETCHED": PAGES, "FAILED": 0, "SKIPPED": (PAGES - 1) // 5}


@pytest.mark.timeout(400)
async def test_a_server_that_is_killed_leaves_a_crawl_that_the_next_one_ends(
    site: Site, database: Database, database_url: str, server_process: StartServer
) -> None:
    site.pages = {"/robots.txt": robots()}
    site.fallback = _tree
    environment = {
        "STATIONMASTER_WORK__LEASE": "2s",
        "STATIONMASTER_OUTBOUND__ALLOW": '["127.0.0.1"]',
        "STATIONMASTER_CRAWL__MIN_RATE_LIMIT": "0",
        "CRAWLER_RATE_LIMIT": "0",
    }

    async def recorded() -> set[str]:
        async with database.system(autocommit=True) as tx:
            rows = await tx.fetch("SELECT url FROM crawl_pages WHERE state <> 'PENDING'")
        return {"/" + row["url"].split("/", 3)[3] for row in rows}

    async def some() -> bool:
        return len(await recorded()) >= 10

    first = await server_process(database_url=database_url, environment=environment)
    payload = struct({"start_urls": [site.url("/p/0")], "max_depth": 50, "sitemaps": False})
    async with first.channel() as channel:
        spec = pb.ExecutionSpec(kind="crawl", payload=payload)
        execution = await TaskServiceStub(channel).SubmitExecution(pb.SubmitExecutionRequest(execution=spec))
    await until(some, seconds=120)
    await first.kill()
    before, seen = await recorded(), len(site.log)
    second = await server_process(database_url=database_url, environment=environment)
    async with second.channel() as channel:
        request = pb.WatchExecutionRequest(name=execution.name)
        async for _ in TaskServiceStub(channel).WatchExecution(request):
            pass
        ended = await TaskServiceStub(channel).GetExecution(pb.GetExecutionRequest(name=execution.name))
    assert ended.state == pb.EXECUTION_STATE_SUCCEEDED
    assert values(ended.result)["fetched"] == PAGES
    assert not before & {asked.path for asked in site.log[seen:]}
