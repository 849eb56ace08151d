"""The kind `process`, from a caller of TaskService to passages that are found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest
from stationmaster.v1 import agent_pb2, identity_pb2, session_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.identity_pb2_grpc import IdentityServiceStub
from stationmaster.v1.session_pb2_grpc import SessionServiceStub
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client.structs import values
from stationmaster_server.db.engine import Database
from stationmaster_server.tasks.process.library import forget_unfinished
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer
from tests.tasks.process.calls import CORPUS, found, process, processed, search
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


async def test_a_text_becomes_passages_that_are_found(tasks: TaskServiceAsyncStub) -> None:
    text = "# Handbook\n\n## Trains\n\n" + "Trains leave hourly. " * 30 + "\n\n## Trams\n\nTrams run at night."
    result = await processed(tasks, text=text, source="handbook", title="The handbook", size=200, overlap=40)
    assert result["document_count"] == 1
    assert result["piece_count"] > 3
    answer = await search(tasks, "trams at night")
    passage = answer.hits[0].passage
    assert (passage.source, passage.title) == ("handbook", "The handbook")
    assert list(passage.headings) == ["Handbook", "Trams"]
    assert "Trams run at night." in passage.text
    assert text[passage.start_offset :].startswith(passage.text)
    assert [passage.document] == result["documents"]
    assert 0 < answer.hits[0].score <= 1


async def test_progress_counts_pieces(tasks: TaskServiceAsyncStub) -> None:
    execution = await process(tasks, text="A sentence of words. " * 900, size=64, overlap=0)
    request = pb.WatchExecutionRequest(name=execution.name)
    events = [event for answer in [a async for a in tasks.WatchExecution(request)] for event in answer.events]
    told = [event.execution_progress for event in events if event.HasField("execution_progress")]
    assert told[-1].fraction == 1
    assert told[-1].counters == {"documents": 1, "pieces": values(execution.result)["piece_count"]}
    assert told[-1].counters["pieces"] > 200


async def test_documents_of_the_same_source_stay_unless_they_are_to_be_replaced(tasks: TaskServiceAsyncStub) -> None:
    for n in range(2):
        await processed(tasks, text=f"Oranges, version {n}.", source="fruit")
    assert await found(tasks, "oranges") == ["fruit", "fruit"]
    result = await processed(tasks, text="Oranges, the last version.", source="fruit", replace=True)
    assert result["replaced_count"] == 2
    assert [hit.passage.text for hit in (await search(tasks, "oranges")).hits] == ["Oranges, the last version."]
    assert (await processed(tasks, remove=["fruit"]))["removed_count"] == 1
    assert await found(tasks, "oranges") == []


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({}, "give one of"),
        ({"text": "a", "crawl": "executions/0199e3f0-0000-7000-8000-000000000000"}, "give one of"),
        ({"session": "sessions/0199e3f0-0000-7000-8000-000000000000"}, "together"),
        ({"text": "a", "size": 64, "overlap": 40}, "half of size"),
        ({"text": "a", "size": 1}, "payload.size"),
        ({"text": "a", "cut": "ANYWHERE"}, "payload.cut"),
    ],
)
async def test_a_payload_that_makes_no_sense_is_refused(
    tasks: TaskServiceAsyncStub, payload: dict[str, Any], place: str
) -> None:
    spec = pb.ExecutionSpec(kind="process", payload=struct(payload))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert place in (refused.value.details() or "")


async def why_it_failed(tasks: TaskServiceAsyncStub, **payload: Any) -> str:
    """The reason of the only attempt."""
    (attempt,) = (await process(tasks, **payload)).failed_attempts
    return attempt.reason


async def test_a_crawl_that_failed_is_not_waited_for(tasks: TaskServiceAsyncStub) -> None:
    spec = pb.ExecutionSpec(kind="crawl", payload=struct({"start_urls": ["http://127.0.0.1:1/"]}))
    crawl = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))

    async def failed() -> bool:
        found = await tasks.GetExecution(pb.GetExecutionRequest(name=crawl.name))
        return found.state == pb.EXECUTION_STATE_FAILED

    await until(failed)
    (attempt,) = (await process(tasks, crawl=crawl.name)).failed_attempts
    assert attempt.error == f"{crawl.name} is FAILED: retry it first"


async def session_of(channel: grpc.aio.Channel) -> str:
    request = session_pb2.CreateSessionRequest(session=session_pb2.Session(spec=agent_pb2.AgentSpec(model="demo")))
    return (await SessionServiceStub(channel).CreateSession(request)).name


async def test_a_file_of_a_workspace_becomes_a_document(station: RunningServer, tasks: TaskServiceAsyncStub) -> None:
    async with station.channel() as channel:
        session = await session_of(channel)
    folder = workspace(station, session)
    (folder / "notes").mkdir()
    (folder / "notes" / "plan.md").write_text("# Plan\n\nWater the tomatoes.\n")
    (folder / "code.py").write_text("# not a heading\nprint('tomatoes')\n")
    await processed(tasks, session=session, path="notes/plan.md")
    await processed(tasks, session=session, path="code.py", source="code")
    answer = await search(tasks, "tomatoes")
    headings = {hit.passage.source: list(hit.passage.headings) for hit in answer.hits}
    assert headings == {f"{session}/notes/plan.md": ["Plan"], "code": []}


def workspace(station: RunningServer, session: str) -> Path:
    folder = station.settings.data_folder / "workspaces" / session.rpartition("/")[2]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def test_no_path_leads_out_of_the_workspace(
    station: RunningServer, tasks: TaskServiceAsyncStub, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    async with station.channel() as channel:
        session = await session_of(channel)
    folder = workspace(station, session)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "picture.bin").write_bytes(b"\xff\xfe\x00")
    for path, reason in (
        ("../secret.txt", "FILE_REFUSED"),
        ("/etc/passwd", "FILE_REFUSED"),
        ("link.txt", "FILE_REFUSED"),
        ("nothing.txt", "NO_SUCH_FILE"),
        ("picture.bin", "NOT_TEXT"),
    ):
        assert await why_it_failed(tasks, session=session, path=path) == reason, path


async def test_others_sessions_and_crawls_are_not_there(station: RunningServer, tasks: TaskServiceAsyncStub) -> None:
    async with station.channel() as channel:
        session = await session_of(channel)
        key = await member(channel)
    async with station.channel(key) as channel:
        theirs = TaskServiceStub(channel)
        assert await why_it_failed(theirs, session=session, path="plan.md") == "RESOURCE_NOT_FOUND"
        mine = await process(tasks, text="Some text.")
        assert await why_it_failed(theirs, crawl=mine.name) == "RESOURCE_NOT_FOUND"
    assert await why_it_failed(tasks, crawl=mine.name) == "NOT_A_CRAWL"


async def member(channel: grpc.aio.Channel) -> str:
    """The key of a new user without rights over others."""
    identity = IdentityServiceStub(channel)
    user = identity_pb2.User(display_name="Member", role=identity_pb2.ROLE_MEMBER)
    made = await identity.CreateUser(identity_pb2.CreateUserRequest(user=user))
    wanted = identity_pb2.ApiKey(user=made.name, display_name="member")
    return (await identity.CreateApiKey(identity_pb2.CreateApiKeyRequest(api_key=wanted))).secret


async def test_a_member_finds_its_own_documents_and_an_administrator_all(
    station: RunningServer, tasks: TaskServiceAsyncStub
) -> None:
    await processed(tasks, text=CORPUS["backup"], source="mine")
    async with station.channel() as channel:
        key = await member(channel)
    async with station.channel(key) as channel:
        theirs = TaskServiceStub(channel)
        await processed(theirs, text=CORPUS["backup"], source="theirs")
        for mode in ("TEXT", "MEANING", "HYBRID"):
            assert await found(theirs, "backup", mode) == ["theirs"]
            assert set(await found(tasks, "backup", mode)) == {"mine", "theirs"}
        await processed(theirs, text="Nothing.", source="mine", replace=True, remove=["mine"])
    assert "mine" in await found(tasks, "backup")


async def test_what_nobody_finishes_is_forgotten(tasks: TaskServiceAsyncStub, database: Database) -> None:
    result = await processed(tasks, text="Some words about lighthouses.", source="half")
    (name,) = result["documents"]
    async with database.system() as tx:
        await tx.execute(
            "UPDATE documents SET ready = false, updated_at = now() - interval '2 days' WHERE id = $1",
            UUID(name.partition("/")[2]),
        )
    assert await found(tasks, "lighthouses") == []
    assert await found(tasks, "lighthouses", "TEXT") == []
    await forget_unfinished(database)
    async with database.system(autocommit=True) as tx:
        assert await tx.fetchval("SELECT (SELECT count(*) FROM documents) + (SELECT count(*) FROM pieces)") == 0


async def test_the_documents_of_an_execution_that_is_replaced_go_with_it(tasks: TaskServiceAsyncStub) -> None:
    for text in ("Apples ripen in autumn.", "Lemons ripen all the year."):
        spec = pb.ExecutionSpec(kind="process", payload=struct({"text": text, "source": "fruit"}))
        request = pb.SubmitExecutionRequest(
            execution_id="0d9c8f5e-7a51-4c1e-9b55-6a0c2f3f7f10",
            execution=spec,
            on_conflict=pb.ID_CONFLICT_POLICY_TERMINATE_EXISTING,
        )
        name = (await tasks.SubmitExecution(request)).name
        async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
            pass
    assert [hit.passage.text for hit in (await search(tasks, "fruit that ripens")).hits] == [
        "Lemons ripen all the year."
    ]
