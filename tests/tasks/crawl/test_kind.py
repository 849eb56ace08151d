"""The kind `crawl`, from a caller of TaskService to the site and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from stationmaster.v1 import storage_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client import Client
from stationmaster_client.structs import values
from stationmaster_server.db.engine import Database
from stationmaster_server.tasks.crawl.journal import forget_old
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer, running, server_settings
from tests.tasks.crawl.site import Site, Streamed, page, response, robots
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

OPEN = {"outbound": {"allow": ["127.0.0.1"]}, "crawl": {"rate_limit": 0, "min_rate_limit": 0}}


@pytest_asyncio.fixture
async def station(database_url: str, tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A whole server that may fetch from loopback as fast as it likes."""
    async with running(server_settings(tmp_path / "data", database_url, **OPEN)) as server:
        yield server


@pytest_asyncio.fixture
async def tasks(station: RunningServer) -> AsyncIterator[TaskServiceAsyncStub]:
    """TaskService, as the administrator calls it."""
    async with station.channel() as channel:
        yield TaskServiceStub(channel)


async def submit(tasks: TaskServiceAsyncStub, **payload: Any) -> pb.Execution:
    """Submit a crawl."""
    spec = pb.ExecutionSpec(kind="crawl", payload=struct({"sitemaps": False, **payload}))
    return await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))


async def ended(tasks: TaskServiceAsyncStub, name: str) -> tuple[pb.Execution, list[Any]]:
    """An execution at its end, and its events."""
    request = pb.WatchExecutionRequest(name=name)
    events = [event async for answer in tasks.WatchExecution(request) for event in answer.events]
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name)), events


async def test_a_crawl_ends_with_its_pages_as_markdown_and_tells_of_each(
    site: Site, tasks: TaskServiceAsyncStub
) -> None:
    site.pages = {"/": page("home", ["/a", "/gone", "/private"]), "/a": page("a")}
    site.pages["/robots.txt"] = robots("User-agent: *", "Disallow: /private")
    execution, events = await ended(tasks, (await submit(tasks, start_urls=[site.url()])).name)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED
    result = values(execution.result)
    assert (result["fetched"], result["failed"], result["skipped"]) == (2, 1, 1)
    assert result["reasons"] == {"HTTP_STATUS": 1, "ROBOTS": 1}
    assert [(found["url"], found["title"], found["depth"]) for found in result["pages"]] == [
        (site.url("/"), "home", 0),
        (site.url("/a"), "a", 1),
    ]
    assert result["pages"][1]["text"].startswith("# a")
    assert (result["pages_left_out"], result["texts_left_out"]) == (0, 0)
    last = [event.execution_progress for event in events if event.HasField("execution_progress")][-1]
    assert (last.fraction, dict(last.counters)) == (1.0, {"fetched": 2, "failed": 1, "skipped": 1})
    lines = [event.execution_log.text for event in events if event.HasField("execution_log")]
    assert lines == [f"{site.url('/gone')}: the site answered 404"]


async def test_the_report_of_a_crawl_lists_its_pages_and_why_others_are_missing(
    site: Site, tasks: TaskServiceAsyncStub, station: RunningServer
) -> None:
    site.pages = {"/": page("home", ["/a", "/gone", "/private"]), "/a": page("a")}
    site.pages["/robots.txt"] = robots("User-agent: *", "Disallow: /private")
    options = pb.ExecutionOptions(report_formats=[storage_pb2.REPORT_FORMAT_JSON])
    payload = struct({"sitemaps": False, "start_urls": [site.url()]})
    spec = pb.ExecutionSpec(kind="crawl", payload=payload, options=options)
    name = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))).name

    async def made() -> list[str]:
        return list((await tasks.GetExecution(pb.GetExecutionRequest(name=name))).reports)

    async with Client.connect(station.target, station.admin_key) as client:
        report = json.loads(await client.reports.read((await until(made, seconds=60))[0]))
    pages, others = report["sections"][1:]
    assert [row[:4] for row in pages["table"]["rows"]] == [
        [site.url("/"), "home", "0", "200"],
        [site.url("/a"), "a", "1", "200"],
    ]
    assert [(row[0], row[1], row[3]) for row in others["table"]["rows"]] == [
        (site.url("/gone"), "failed", "the site answered 404"),
        (site.url("/private"), "skipped", "forbidden by robots.txt"),
    ]
    assert others["text"] == "- 1 answered with an error\n- 1 forbidden by robots.txt"


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({}, "start_urls"),
        ({"start_urls": ["ftp://h/"]}, "start_urls.0"),
        ({"start_urls": ["http://h/"], "max_depth": 51}, "max_depth"),
        ({"start_urls": ["http://h/"], "stay": "HOME"}, "stay"),
        ({"start_urls": ["http://h/"], "proxies": ["socks5://u:secret@h"]}, "proxies.0"),
        ({"start_urls": ["http://h/"], "cookies": [{"name": "a", "value": "secret\r\n"}]}, "cookies.0.value"),
        ({"start_urls": ["http://h/"], "speed": 3}, "speed"),
    ],
)
async def test_a_payload_that_is_wrong_is_refused_by_its_field_and_not_repeated(
    tasks: TaskServiceAsyncStub, payload: dict[str, Any], field: str
) -> None:
    spec = pb.ExecutionSpec(kind="crawl", payload=struct(payload))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"payload.{field}" in str(raised.value.details())
    assert "secret" not in str(raised.value)


async def test_a_private_address_is_refused_for_good(tasks: TaskServiceAsyncStub) -> None:
    execution, _ = await ended(tasks, (await submit(tasks, start_urls=["http://169.254.169.254/"])).name)
    assert execution.state == pb.EXECUTION_STATE_FAILED
    (attempt,) = execution.failed_attempts
    assert attempt.reason == "ADDRESS_REFUSED"
    assert attempt.error.startswith("no page could be fetched; http://169.254.169.254/: 169.254.169.254 has an address")


async def test_a_site_that_does_not_answer_at_first_is_tried_again_from_the_beginning(
    site: Site, tasks: TaskServiceAsyncStub
) -> None:
    broken = iter([response(b"", status=503)] * 3)
    site.pages = {"/": lambda asked: next(broken, page("home"))}
    execution, _ = await ended(tasks, (await submit(tasks, start_urls=[site.url()])).name)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED
    assert [attempt.reason for attempt in execution.failed_attempts] == ["HTTP_STATUS"]


async def test_a_cancelled_crawl_stops_at_once(site: Site, tasks: TaskServiceAsyncStub) -> None:
    @Streamed
    async def never(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    site.pages = {"/": never}
    name = (await submit(tasks, start_urls=[site.url()])).name

    async def asked() -> bool:
        return site.counts["/"] == 1

    await until(asked, seconds=60)
    await tasks.CancelExecution(pb.CancelExecutionRequest(name=name))
    execution, _ = await ended(tasks, name)
    assert execution.state == pb.EXECUTION_STATE_CANCELLED


async def test_a_server_that_stops_hands_the_crawl_to_the_next_which_fetches_no_page_twice(
    site: Site, database: Database, database_url: str, tmp_path: Path
) -> None:
    gate = asyncio.Event()

    @Streamed
    async def gated(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(page("gated"))

    site.pages = {"/": page("home", ["/a", "/gated"]), "/a": page("a"), "/gated": gated}
    settings = server_settings(tmp_path / "data", database_url, **OPEN)
    async with running(settings) as first, first.channel() as channel:
        name = (await submit(TaskServiceStub(channel), start_urls=[site.url()])).name

        async def two_are_there() -> bool:
            async with database.system(autocommit=True) as tx:
                return bool(await tx.fetchval("SELECT count(*) = 2 FROM crawl_pages WHERE state = 'FETCHED'"))

        await until(two_are_there, seconds=60)
    gate.set()
    async with running(settings) as second, second.channel() as channel:
        execution, _ = await ended(TaskServiceStub(channel), name)
    assert values(execution.result)["fetched"] == 3
    assert (site.counts["/"], site.counts["/a"]) == (1, 1)


async def test_a_crawl_that_is_longer_than_a_shift_goes_on_in_the_next_and_uses_no_attempts(
    site: Site, tasks: TaskServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stationmaster_server.tasks.kinds.crawl._SHIFT", timedelta(0))
    site.pages = {"/": page("home", [f"/{n}" for n in range(5)])}
    site.pages |= {f"/{n}": page(f"page {n}") for n in range(5)}
    execution, _ = await ended(tasks, (await submit(tasks, start_urls=[site.url()])).name)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED
    assert not execution.failed_attempts
    assert values(execution.result)["fetched"] == 6
    assert {count for path, count in site.counts.items() if path != "/robots.txt"} == {1}
    assert site.counts["/robots.txt"] > 3


async def test_what_does_not_fit_into_the_result_is_counted(site: Site, tasks: TaskServiceAsyncStub) -> None:
    def long_page(n: int) -> bytes:
        return response(f"{n} {'word ' * 60_000}".encode(), kind="text/plain")

    site.pages = {"/": page("home", [f"/{n}" for n in range(4)]), **{f"/{n}": long_page(n) for n in range(4)}}
    execution, _ = await ended(tasks, (await submit(tasks, start_urls=[site.url()])).name)
    result = values(execution.result)
    assert (result["fetched"], len(result["pages"]), result["texts_left_out"]) == (5, 5, 2)


async def test_a_server_holds_tasks_to_its_own_bounds(database_url: str, tmp_path: Path) -> None:
    bounds = {"crawl": {"min_rate_limit": "2s", "max_pages": 50}}
    async with (
        running(server_settings(tmp_path / "data", database_url, **bounds)) as server,
        server.channel() as channel,
    ):
        tasks = TaskServiceStub(channel)
        for wrong in ({"rate_limit_seconds": 1}, {"max_pages": 51}, {"use_proxy": True}):
            execution, _ = await ended(tasks, (await submit(tasks, start_urls=["http://h.invalid/"], **wrong)).name)
            assert execution.state == pb.EXECUTION_STATE_FAILED
            (attempt,) = execution.failed_attempts
            assert f"payload.{next(iter(wrong))}" in attempt.error


async def test_start_urls_may_be_templates(site: Site, tasks: TaskServiceAsyncStub) -> None:
    site.pages = {"/docs": page("docs")}
    task = pb.Task(
        kind="crawl",
        payload=struct({"start_urls": [f"http://127.0.0.1:{site.port}/{{{{ section }}}}"], "sitemaps": False}),
        variables=[pb.VariableDeclaration(name="section", required=True)],
    )
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="docs", task=task))
    request = pb.ExecuteTaskRequest(name="tasks/docs", variables=struct({"section": "docs"}))
    execution, _ = await ended(tasks, (await tasks.ExecuteTask(request)).name)
    assert values(execution.result)["pages"][0]["title"] == "docs"


async def test_crawls_are_forgotten_when_their_time_is_over(
    site: Site, tasks: TaskServiceAsyncStub, database: Database
) -> None:
    site.pages = {"/": page("home")}
    await ended(tasks, (await submit(tasks, start_urls=[site.url()])).name)

    async def kept() -> int:
        async with database.system(autocommit=True) as tx:
            return int(
                await tx.fetchval("SELECT (SELECT count(*) FROM crawl_runs) + (SELECT count(*) FROM crawl_pages)")
            )

    await forget_old(database, timedelta(days=1))
    assert await kept() == 2
    async with database.system() as tx:
        await tx.execute("UPDATE crawl_runs SET updated_at = now() - interval '2 days'")
    await forget_old(database, timedelta(days=1))
    assert await kept() == 0
