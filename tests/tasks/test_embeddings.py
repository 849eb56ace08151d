"""A task that could not be embedded is embedded when it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client import Client
from stationmaster_server.db.engine import Database
from stationmaster_server.embedding.embedder import LocalEmbedder
from stationmaster_server.tasks import search_store
from stationmaster_server.wire.fields import struct

from tests.embedding.picky import Picky
from tests.fixtures.server import running, server_settings
from tests.resilience.site import serve
from tests.waiting import until

ZEBRA = pb.Task(
    name="tasks/zebra",
    kind="prompt",
    payload=struct({"prompt": "zebras?", "model": "demo"}),
    description="the stripes of zebras",
)


async def test_a_task_is_embedded_anew_when_its_text_changes_and_not_when_the_rest_does(
    database_url: str, administrator_url: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(administrator_url)

    async def items() -> list[str]:
        rows = await connection.fetch("SELECT state FROM work_items WHERE kind = 'task_embed' ORDER BY created_at")
        return [row["state"] for row in rows]

    async def lacking() -> int:
        wrong = "text_etag IS DISTINCT FROM v.etag"
        sql = f"SELECT count(*) FROM tasks LEFT JOIN task_vectors v USING (task_id) WHERE {wrong}"
        return int(await connection.fetchval(sql))

    async def up_to_date() -> bool:
        return not await lacking()

    async with running(server_settings(tmp_path / "data", database_url)) as server, server.channel() as channel:
        stub = TaskServiceStub(channel)
        await stub.CreateTask(pb.CreateTaskRequest(task_id="zebra", task=ZEBRA))
        await until(up_to_date)
        await stub.PauseTask(pb.PauseTaskRequest(name="tasks/zebra"))
        await stub.ResumeTask(pb.ResumeTaskRequest(name="tasks/zebra"))
        rest = pb.Task(name="tasks/zebra", schedule=pb.Schedule(cron="0 0 1 1 *"), description=ZEBRA.description)
        paths = FieldMask(paths=["schedule", "description"])
        await stub.UpdateTask(pb.UpdateTaskRequest(task=rest, update_mask=paths))
        assert await lacking() == 0
        assert len(await items()) == 1
        await connection.execute("UPDATE work_items SET state = 'DEAD' WHERE kind = 'task_embed'")
        text = pb.Task(name="tasks/zebra", description="the manes of lions")
        await stub.UpdateTask(pb.UpdateTaskRequest(task=text, update_mask=FieldMask(paths=["description"])))
        await until(up_to_date)
        assert "DEAD" not in await items()  # of a text that is no more
        await connection.execute("UPDATE work_items SET state = 'DEAD' WHERE kind = 'task_embed'")
        await stub.DeleteTask(pb.DeleteTaskRequest(name="tasks/zebra"))
        assert await items() == []
    await connection.close()


async def test_a_task_whose_embedding_failed_for_good_is_embedded_later(
    database_url: str, administrator_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: LocalEmbedder, texts: list[str]) -> Any:
        raise RuntimeError("the encoder is broken")

    settings = server_settings(tmp_path / "data", database_url)
    connection = await asyncpg.connect(administrator_url)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(LocalEmbedder, "embed", broken)
            async with running(settings) as server, server.channel() as channel:
                await TaskServiceStub(channel).CreateTask(pb.CreateTaskRequest(task_id="zebra", task=ZEBRA))

                async def dead() -> Any:
                    sql = "SELECT count(*) FROM work_items WHERE kind = 'task_embed' AND state = 'DEAD'"
                    return await connection.fetchval(sql)

                await until(dead, seconds=60)
        async with running(settings):

            async def embedded() -> Any:
                return await connection.fetchval("SELECT count(*) FROM task_vectors WHERE task_id = 'zebra'")

            await until(embedded, seconds=60)
    finally:
        await connection.close()


async def test_a_text_that_a_new_encoder_refuses_is_passed_over_and_not_tried_again(
    database: Database, database_url: str, administrator_url: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(administrator_url)

    async def encoders() -> dict[str, str]:
        rows = await connection.fetch("SELECT task_id, encoder FROM task_vectors")
        return {row["task_id"]: row["encoder"] for row in rows}

    async def both() -> bool:
        return len(await encoders()) == 2

    async with (
        running(server_settings(tmp_path / "data", database_url, embedding={"provider": "hashing"})) as server,
        server.channel() as channel,
    ):
        stub = TaskServiceStub(channel)
        await stub.CreateTask(pb.CreateTaskRequest(task_id="zebra", task=ZEBRA))
        await stub.CreateTask(pb.CreateTaskRequest(task_id="lion", task=pb.Task(kind="prompt", payload=ZEBRA.payload)))
        await until(both)
    # Nobody waits for a server with the other encoder to be forgotten.
    await connection.execute("DELETE FROM servers")
    picky = Picky(["stripes"])
    async with serve({"/v1/embeddings": picky}) as site:
        remote = {"base_url": f"http://127.0.0.1:{site.port}/v1", "model": "small"}
        settings = server_settings(
            tmp_path / "data",
            database_url,
            embedding={"provider": "openai", "openai": remote},
            outbound={"allow": [f"127.0.0.1:{site.port}"]},
        )
        async with running(settings) as server, Client.connect(server.target, server.admin_key) as client:
            await client.maintenance.wait((await client.maintenance.trigger("task-embedding", "run")).name)

            async def passed_over() -> Any:
                refused_by = await connection.fetchval("SELECT method FROM sync_skipped WHERE task_id = 'zebra'")
                return refused_by is not None and (await encoders())["lion"] == refused_by

            await until(passed_over, seconds=60)
            name = (await encoders())["lion"]
            assert (await encoders())["zebra"] != name

            async def all_done() -> Any:
                unfinished = "SELECT FROM work_items WHERE kind = 'task_embed' AND state <> 'SUCCEEDED'"
                return await connection.fetchval(f"SELECT NOT EXISTS ({unfinished})")

            await until(all_done)
            told = server.app.metrics.registry.get_sample_value("stationmaster_task_vector_sync_refused_texts_total")
            assert told is not None
            assert told >= 1
            async with database.system(autocommit=True) as tx:
                assert await search_store.lacking_vectors(tx, name, 10, others=True) == []
    await connection.close()
