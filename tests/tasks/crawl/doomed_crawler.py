"""A crawler in a process of its own, to be killed: `doomed_crawler.py DATABASE_URL ORGANIZATION EXECUTION URL`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.tasks.crawl.crawler import Crawler
from stationmaster_server.tasks.crawl.journal import Journal
from stationmaster_server.tasks.crawl.settings import CrawlSettings


async def main(url: str, organization_id: UUID, execution_id: UUID, start: str) -> None:
    """Crawl to the end."""
    settings = CrawlSettings((start,), max_depth=50, max_pages=1000, rate_limit=timedelta(0), max_concurrent=4)
    database = await Database.connect(url, pool_size=2, system_pool_size=4, connect_timeout=timedelta(seconds=30))
    journal = Journal(database, organization_id, execution_id, settings.max_urls)
    await Crawler(settings, journal, Outbound(("127.0.0.1",))).run()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], UUID(sys.argv[2]), UUID(sys.argv[3]), sys.argv[4]))
