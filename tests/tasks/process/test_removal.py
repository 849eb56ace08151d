"""Documents are removed before others are made, and not by a later attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from stationmaster_server.errors import QuotaViolation, Reason, ResourceExhausted
from stationmaster_server.tasks.kinds.process import ProcessKind

from tests.tasks.process.calls import processed

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

PAGES = 30


async def crawled(connection: Any) -> UUID:
    """A crawl of the first execution's owner that has succeeded."""
    crawl = uuid4()
    whose = await connection.fetchrow("SELECT organization_id, user_id FROM executions")
    await connection.execute(
        """INSERT INTO work_items (organization_id, user_id, item_id, subject_id, kind, state, priority, payload,
                                   finished_at)
           VALUES ($1, $2, $3, $3, 'task.crawl', 'SUCCEEDED', 3, '{"request_id": "x"}', now())""",
        *whose,
        crawl,
    )
    await connection.execute(
        """INSERT INTO executions (organization_id, user_id, id, kind, trigger, payload)
           VALUES ($1, $2, $3, 'crawl', 'AD_HOC', '{}')""",
        *whose,
        crawl,
    )
    await connection.execute(
        """INSERT INTO crawl_pages (organization_id, execution_id, url, host, depth, state, markdown, title)
           SELECT $1, $2, 'https://x.test/' || n, 'x.test', 0, 'FETCHED', 'page number ' || n, 'a page'
           FROM generate_series(1, $3) n""",
        whose["organization_id"],
        crawl,
        PAGES,
    )
    return crawl


async def test_an_attempt_that_goes_on_removes_nothing_that_was_made(
    tasks: TaskServiceAsyncStub, administrator_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await processed(tasks, text="an old page", source="https://x.test/1")
    real = ProcessKind._split
    split_names: list[str] = []

    async def busy_once(self: ProcessKind, source: Any, how: Any) -> Any:
        split_names.append(source.name)
        if len(split_names) == PAGES - 5:
            violation = QuotaViolation("server", "all processes are busy")
            raise ResourceExhausted(Reason.SERVER_OVERLOADED, "busy", violation, retry_after=timedelta(milliseconds=10))
        return await real(self, source, how)

    monkeypatch.setattr(ProcessKind, "_split", busy_once)
    connection = await asyncpg.connect(administrator_url)
    try:
        crawl = await crawled(connection)
        result = await processed(tasks, crawl=f"executions/{crawl}", remove=["https://x.test/1"])
        assert (result["document_count"], result["removed_count"]) == (PAGES, 1)
        assert await connection.fetchval("SELECT count(*) FROM documents WHERE ready") == PAGES
    finally:
        await connection.close()
