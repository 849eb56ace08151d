"""The bound of an organization's pieces: what does not fit is refused, and what is there is counted once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client.structs import values
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.tasks.process.library import Library
from stationmaster_server.tasks.process.model import Document, Splitting
from stationmaster_server.tasks.process.splitter import split
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import StartServer, running, server_settings
from tests.tasks.crawl.site import Site, page, serving
from tests.tasks.process.calls import process, processed
from tests.tasks.process.test_kill import FAST, PATIENT, pieces_there, the_end
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

TEXT = "".join(f"## Part {n}\n\nThis is what part {n} says of lighthouse {n * 7}.\n\n" for n in range(1000))
PIECES = len(split(TEXT, Splitting(120, 20)))


@asynccontextmanager
async def room_for(pieces: int, database_url: str, folder: Path) -> AsyncIterator[TaskServiceAsyncStub]:
    """TaskService of a server whose organizations may have so many pieces."""
    settings = {
        "documents": {"max_pieces": pieces},
        "outbound": {"allow": ["127.0.0.1"]},
        "crawl": {"rate_limit": 0, "min_rate_limit": 0},
    }
    async with running(server_settings(folder, database_url, **settings)) as server, server.channel() as channel:
        yield TaskServiceStub(channel)


async def test_a_document_that_does_not_fit_is_refused_and_says_how_much_would(
    database_url: str, tmp_path: Path, database: Database
) -> None:
    async with room_for(PIECES + 1, database_url, tmp_path / "data") as tasks:
        await processed(tasks, text="One piece.", source="first")
        await processed(tasks, text=TEXT, source="fits", size=120, overlap=20)
        execution = await process(tasks, text="Two pieces.\n\n" * 12, source="second", size=64, overlap=0)
        (attempt,) = execution.failed_attempts
        assert attempt.reason == "DOCUMENTS_FULL"
        assert "the organization has room for 0 more" in attempt.error
        await processed(tasks, remove=["first"])
        await processed(tasks, text="One piece.", source="third")
    assert await pieces_there(database) == PIECES + 1


@pytest.mark.timeout(300)
async def test_a_document_that_just_fits_still_does_after_kill_9_amid_it(
    database: Database, database_url: str, server_process: StartServer
) -> None:
    tight = {**FAST, "STATIONMASTER_DOCUMENTS__MAX_PIECES": str(PIECES)}
    server = await server_process(database_url=database_url, environment=tight)
    async with server.channel() as channel:
        payload = struct({"text": TEXT, "source": "lighthouses", "size": 120, "overlap": 20})
        spec = pb.ExecutionSpec(kind="process", payload=payload, options=PATIENT)
        request = pb.SubmitExecutionRequest(execution=spec)
        name = (await TaskServiceStub(channel).SubmitExecution(request)).name

    async def some_are_there() -> bool:
        return await pieces_there(database) > 0

    await until(some_are_there, seconds=60)
    await server.kill()
    assert 0 < await pieces_there(database) < PIECES
    second = await server_process(database_url=database_url, environment=tight)
    async with second.channel() as channel:
        execution = await the_end(TaskServiceStub(channel), name)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED, execution.message
    assert values(execution.result)["piece_count"] == await pieces_there(database) == PIECES


async def test_documents_that_an_earlier_attempt_has_finished_are_not_counted_twice(
    database_url: str, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, finished = Library.finish, list[str]()

    async def dies_at_the_third(self: Library, caller: Caller, document: Document, **options: Any) -> int:
        finished.append(document.source)
        if len(finished) == 3:
            raise ConnectionError("as if the server had died")
        return await finish(self, caller, document, **options)

    monkeypatch.setattr(Library, "finish", dies_at_the_third)
    async with serving(Site()) as site, room_for(4, database_url, tmp_path / "data") as tasks:
        site.pages = {"/": page("home", ["/a", "/b", "/c"]), **{f"/{name}": page(name) for name in "abc"}}
        spec = pb.ExecutionSpec(kind="crawl", payload=struct({"start_urls": [site.url()], "sitemaps": False}))
        crawl = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))
        assert (await the_end(tasks, crawl.name)).state == pb.EXECUTION_STATE_SUCCEEDED
        execution = await process(tasks, crawl=crawl.name)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED, execution.message
    assert [attempt.attempt for attempt in execution.failed_attempts] == [1]
    result = values(execution.result)
    assert (result["document_count"], result["piece_count"]) == (4, 4)
    assert await pieces_there(database) == 4
