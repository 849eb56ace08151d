"""What searches through tasks and documents promise."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import search_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster_server.db.engine import Database
from stationmaster_server.embedding.embedder import LocalEmbedder
from stationmaster_server.embedding.hashing import HashingEncoder
from stationmaster_server.embedding.ranking import fused, merged
from stationmaster_server.tasks.search_model import Key
from stationmaster_server.wire.fields import struct

from tests.tasks.process.calls import CORPUS, found, process, processed, search
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


@pytest_asyncio.fixture
async def corpus(tasks: TaskServiceAsyncStub) -> None:
    """Documents about different things."""
    for source, text in CORPUS.items():
        await processed(tasks, text=text, source=source)


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize(
    ("query", "source"),
    [
        ("restore the databases from backups", "backup"),
        ("delivery failed, when is it retried?", "retries"),
        ("how do I change my passwort", "login"),
        ("when do I have to pay the invoice", "billing"),
        ("watering tomatoes", "garden"),
        ("Datensicherungen", "sprache"),
        ("備份資料庫", "kanji"),
    ],
)
async def test_the_right_document_comes_first(tasks: TaskServiceAsyncStub, query: str, source: str) -> None:
    assert (await found(tasks, query))[0] == source
    assert (await found(tasks, query, "HYBRID"))[0] == source


@pytest.mark.usefixtures("corpus")
async def test_what_has_nothing_to_do_with_anything_finds_nothing(tasks: TaskServiceAsyncStub) -> None:
    for query in ("xylophone quartz", "?!", " "):
        assert await found(tasks, query) == [], query


@pytest.mark.usefixtures("corpus")
async def test_words_find_passages_that_hold_them(tasks: TaskServiceAsyncStub) -> None:
    answer = await search(tasks, "exponential", "TEXT")
    assert [hit.passage.source for hit in answer.hits] == ["retries"]
    assert "**exponential**" in answer.hits[0].snippet
    assert await found(tasks, "retrying", "TEXT") == []  # another form of the word
    assert "retries" in await found(tasks, "retrying", "MEANING")


@pytest.mark.usefixtures("corpus")
async def test_pages_of_a_search_are_the_whole_of_it(tasks: TaskServiceAsyncStub) -> None:
    request = pb.SearchTasksRequest(
        query="backup or invoices or tomatoes", mode=search_pb2.SEARCH_MODE_HYBRID, page_size=1000
    )
    request.targets.append(pb.SEARCH_TARGET_DOCUMENTS)
    whole = [hit.passage.source for hit in (await tasks.SearchTasks(request)).hits]
    assert len(whole) > 2
    request.page_size = 2
    pages: list[str] = []
    while True:
        page = await tasks.SearchTasks(request)
        pages += [hit.passage.source for hit in page.hits]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert pages == whole
    request.mode = search_pb2.SEARCH_MODE_TEXT
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.SearchTasks(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def create(tasks: TaskServiceAsyncStub, task_id: str, description: str) -> pb.Task:
    """A task that says something."""
    task = pb.Task(kind="process", payload=struct({"text": "x"}), description=description)
    return await tasks.CreateTask(pb.CreateTaskRequest(task_id=task_id, task=task))


async def embedded(tasks: TaskServiceAsyncStub, query: str, names: list[str]) -> None:
    """Wait until a search by meaning finds these tasks."""

    async def there() -> bool:
        return await found(tasks, query, targets=("TASKS",)) == names

    await until(there)


async def test_a_task_is_found_by_meaning_and_by_what_it_says_now(tasks: TaskServiceAsyncStub) -> None:
    made = await create(tasks, "one", "Sends reminders of unpaid invoices")
    await create(tasks, "two", "Waters the garden")
    await embedded(tasks, "remind customers about invoicing", ["tasks/one"])
    made.description = "Feeds the penguins"
    await tasks.UpdateTask(pb.UpdateTaskRequest(task=made, update_mask=FieldMask(paths=["description"])))
    await embedded(tasks, "penguin feeding", ["tasks/one"])
    await embedded(tasks, "remind customers about invoicing", [])
    await tasks.DeleteTask(pb.DeleteTaskRequest(name="tasks/one"))
    await embedded(tasks, "penguin feeding", [])


async def test_a_text_that_changes_while_it_is_embedded_gets_no_vector_of_the_old_one(
    tasks: TaskServiceAsyncStub, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, wanted = LocalEmbedder.embed, list[str]()
    changed, later = asyncio.Event(), asyncio.Event()

    async def slowly(self: LocalEmbedder, texts: Sequence[str]) -> list[list[float]]:
        wanted.extend(texts)
        await (changed if len(wanted) == 1 else later).wait()
        return await embed(self, texts)

    async def begun(times: int) -> bool:
        return len(wanted) >= times

    async def vectors() -> list[tuple[str, list[float]]]:
        async with database.system(autocommit=True) as tx:
            rows = await tx.fetch("SELECT etag, vector::real[] AS vector FROM task_vectors")
        return [(row["etag"], row["vector"]) for row in rows]

    monkeypatch.setattr(LocalEmbedder, "embed", slowly)
    made = await create(tasks, "one", "Sends reminders of unpaid invoices")
    await until(lambda: begun(1))
    made.description = "Feeds the penguins"
    now = await tasks.UpdateTask(pb.UpdateTaskRequest(task=made, update_mask=FieldMask(paths=["description"])))
    changed.set()
    await until(lambda: begun(3))  # the new text, and the one who had the old text looks again
    assert await vectors() == []
    later.set()
    ((etag, vector),) = await until(vectors)
    assert "invoices" in wanted[0]
    assert "penguins" in wanted[1]
    assert wanted[2] == wanted[1]
    (expected,) = HashingEncoder().encode(wanted[1:2])
    assert etag == now.etag
    assert vector == pytest.approx(expected, abs=1e-6)


async def test_a_pause_keeps_a_task_findable(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, "one", "Feeds the penguins")
    await embedded(tasks, "penguin feeding", ["tasks/one"])
    await tasks.PauseTask(pb.PauseTaskRequest(name="tasks/one"))
    await embedded(tasks, "penguin feeding", ["tasks/one"])


async def test_tasks_and_documents_are_searched_together(tasks: TaskServiceAsyncStub) -> None:
    await create(tasks, "penguins", "Feeds the penguins")
    await processed(tasks, text="Penguins eat fish.", source="zoo")
    await embedded(tasks, "penguins", ["tasks/penguins"])
    for mode in ("TEXT", "MEANING", "HYBRID"):
        assert set(await found(tasks, "penguins", mode, targets=("TASKS", "DOCUMENTS"))) == {"tasks/penguins", "zoo"}
    assert await found(tasks, "penguins", "UNSPECIFIED", targets=()) == ["tasks/penguins"]


async def test_vectors_of_another_encoder_are_not_compared_and_made_anew(
    tasks: TaskServiceAsyncStub, database: Database
) -> None:
    await create(tasks, "penguins", "Feeds the penguins")
    await processed(tasks, text="Penguins eat fish.", source="zoo")
    await embedded(tasks, "penguins", ["tasks/penguins"])
    async with database.system() as tx:
        await tx.execute("UPDATE pieces SET encoder = 'another'")
        await tx.execute("UPDATE task_vectors SET encoder = 'another'")
    assert await found(tasks, "penguins", targets=("TASKS", "DOCUMENTS")) == []
    assert await found(tasks, "penguins", "TEXT") == ["zoo"]


async def test_an_empty_text_makes_a_document_without_pieces(tasks: TaskServiceAsyncStub) -> None:
    execution = await process(tasks, text=" \n\n ", source="empty")
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED


def test_fusion_prefers_what_is_early_in_both() -> None:
    a, b, c = (("TASKS", name, 0) for name in "abc")
    words: list[tuple[Key, float]] = [(a, 9.0), (b, 8.0)]
    meaning: list[tuple[Key, float]] = [(c, 0.9), (b, 0.8)]
    assert [key for key, _ in fused([words, meaning])] == [b, a, c]
    assert [key for key, _ in merged([[(a, 0.1)], [(b, 0.2)]])] == [b, a]
