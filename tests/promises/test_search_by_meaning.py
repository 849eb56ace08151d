"""What was said, planned and written is found by what it means: with the real model, through the API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stationmaster.v1 import agent_pb2, search_pb2, session_pb2, task_pb2
from stationmaster.v1.session_pb2_grpc import SessionServiceStub
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.config import Settings
from stationmaster_server.db.engine import Database
from stationmaster_server.embedding.minilm import MiniLmEncoder
from stationmaster_server.wire.fields import struct

from tests.client.cli.program import Program
from tests.embedding.model import model_folder
from tests.fixtures.server import RunningServer, running, server_settings
from tests.tasks.process.calls import processed
from tests.waiting import until

MEANING, TEXT = search_pb2.SEARCH_MODE_MEANING, search_pb2.SEARCH_MODE_TEXT
QUERY = "automobile"
SAID = "Please help me to sell my old car"
NOISE = ["The espresso maker is broken", "Slugs are eating the lettuce", "The invoice was paid twice"]
SERVICES = ("task-embedding", "message-embedding", "document-embedding")


def settings(database_url: str, folder: Path, **embedding: str) -> Settings:
    return server_settings(folder / "data", database_url, embedding=embedding)


async def write(server: RunningServer) -> None:
    """A conversation, tasks and documents, of which one each is about cars."""
    async with server.channel() as channel:
        sessions, tasks = SessionServiceStub(channel), TaskServiceStub(channel)
        spec = agent_pb2.AgentSpec(model="demo", runtime=agent_pb2.RUNTIME_MODEL)
        session = await sessions.CreateSession(session_pb2.CreateSessionRequest(session=session_pb2.Session(spec=spec)))
        for text in (SAID, *NOISE):
            async for _ in sessions.SendMessage(session_pb2.SendMessageRequest(session=session.name, text=text)):
                pass
        for name, text in (("cars", "Reminds the owners of cars of inspections"), ("lettuce", NOISE[1])):
            task = task_pb2.Task(kind="process", payload=struct({"text": "x"}), description=text)
            await tasks.CreateTask(task_pb2.CreateTaskRequest(task_id=name, task=task))
        await processed(tasks, text="The garage repairs cars on Mondays.", source="garage")
        await processed(tasks, text=" ".join(NOISE), source="noise")


async def found(server: RunningServer, mode: search_pb2.SearchMode.ValueType, query: str = QUERY) -> dict[str, Any]:
    """What each search has first: a message, a task, a document."""
    async with server.channel() as channel:
        messages = await SessionServiceStub(channel).SearchMessages(
            session_pb2.SearchMessagesRequest(query=query, mode=mode)
        )
        hits = [hit.message.parts[0].text for hit in messages.hits]
        first = {"messages": next((text for text in hits if text in (SAID, *NOISE)), "")}
        for target in (task_pb2.SEARCH_TARGET_TASKS, task_pb2.SEARCH_TARGET_DOCUMENTS):
            request = task_pb2.SearchTasksRequest(query=query, mode=mode, targets=[target])
            answer = await TaskServiceStub(channel).SearchTasks(request)
            names = [hit.passage.source or hit.task.name for hit in answer.hits]
            first[task_pb2.SearchTarget.Name(target)] = names[0] if names else ""
    return first


ABOUT_CARS = {"messages": SAID, "SEARCH_TARGET_TASKS": "tasks/cars", "SEARCH_TARGET_DOCUMENTS": "garage"}
NOTHING = dict.fromkeys(ABOUT_CARS, "")


async def encoders(database: Database) -> Sequence[str]:
    """Those of all vectors that there are, as far as all are there."""
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch(
            """SELECT encoder FROM message_vectors UNION SELECT encoder FROM pieces
               UNION SELECT encoder FROM task_vectors UNION SELECT encoder FROM documents
               UNION SELECT 'missing' FROM sessions WHERE embedded_message < last_message
               UNION SELECT 'missing' FROM tasks t
                 WHERE NOT EXISTS (SELECT FROM task_vectors v WHERE v.task_id = t.task_id) ORDER BY 1"""
        )
    return [row["encoder"] for row in rows]


async def test_once_the_model_is_there_everything_is_embedded_anew_and_found_by_meaning(
    database_url: str, database: Database, tmp_path: Path
) -> None:
    async with running(settings(database_url, tmp_path, provider="hashing")) as server:
        await write(server)
        await until(lambda: all_of(database, "hashing-1"), seconds=60)
        assert await found(server, MEANING) == NOTHING, "it knows no synonyms"
        assert (await found(server, MEANING, "cars"))["SEARCH_TARGET_TASKS"] == "tasks/cars"
    async with running(settings(database_url, tmp_path, model_folder=str(model_folder()))) as server:
        stationmaster = Program(tmp_path, server.target, server.admin_key)
        for service in SERVICES:  # they would run by themselves, within a minute
            assert (await stationmaster("services", "trigger", service)).code == 0
        await until(lambda: all_of(database, MiniLmEncoder.name), seconds=60)
        assert await found(server, MEANING) == ABOUT_CARS
        assert await found(server, TEXT) == NOTHING
        await look(stationmaster)
        async with database.system() as tx:
            await tx.execute(
                """INSERT INTO servers (server_id, name, version, encoder, resources)
                   VALUES (gen_random_uuid(), 'another', '1', 'hashing-1', '{}')"""
            )
        (status,) = await stationmaster.many([("status",)])
        assert "servers make vectors by different encoders (hashing-1, minilm-l6-v2-1)" in " ".join(status.out.split())
        assert "synonyms" in status.out


async def all_of(database: Database, encoder: str) -> bool:
    return await encoders(database) == [encoder]


async def look(stationmaster: Program) -> None:
    """The command line finds the same, and says what it was found with."""
    searched, tasks, refused, status = await stationmaster.many(
        [
            ("sessions", "search", QUERY, "--meaning"),
            ("tasks", "search", QUERY, "--hybrid", "--json"),
            ("sessions", "search", QUERY, "--meaning", "--hybrid"),
            ("status",),
        ]
    )
    assert SAID in searched.out
    assert next(hit["task"]["name"] for hit in json.loads(tasks.out)["hits"]) == "tasks/cars"
    assert (refused.code, "give one of --meaning and --hybrid" in refused.err) == (2, True)
    assert MiniLmEncoder.name in status.out
    assert "synonyms" not in status.out
