"""A task that could not be embedded is embedded when it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.embedding.embedder import LocalEmbedder
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import running, server_settings
from tests.waiting import until


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
                task = pb.Task(
                    kind="prompt",
                    payload=struct({"prompt": "zebras?", "model": "demo"}),
                    description="the stripes of zebras",
                )
                await TaskServiceStub(channel).CreateTask(pb.CreateTaskRequest(task_id="zebra", task=task))

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
