"""Executions that ended long ago are forgotten, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
from stationmaster.v1 import task_pb2 as pb
from stationmaster_server.db.engine import Database
from stationmaster_server.tasks import retention_store
from stationmaster_server.wire.fields import struct

from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


async def test_old_executions_are_forgotten_with_their_streams(
    tasks: TaskServiceAsyncStub, database: Database, administrator_url: str
) -> None:
    specs = [pb.ExecutionSpec(kind="steered", payload=struct({"text": str(n)})) for n in range(3)]
    waiting = pb.ExecutionSpec(kind="steered", payload=struct({"gate": "never"}))
    names = (await tasks.BatchSubmitExecutions(pb.BatchSubmitExecutionsRequest(executions=[*specs, waiting]))).names
    for name in names[:3]:
        async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
            pass
    connection = await asyncpg.connect(administrator_url)

    async def followed_up() -> bool:
        return await connection.fetchval("SELECT count(*) = 3 FROM work_items WHERE followed_up") is True

    await until(followed_up)
    await connection.execute(
        "UPDATE work_items SET finished_at = finished_at - interval '91 days' WHERE item_id = ANY($1::uuid[])",
        [name.partition("/")[2] for name in names[:2]],
    )
    async with database.system() as tx:
        assert await retention_store.forget(tx, timedelta(days=90)) == 2
    left = {row.name for row in (await tasks.ListExecutions(pb.ListExecutionsRequest())).executions}
    assert left == set(names[2:])
    for table, column in (("streams", "stream_id"), ("events", "stream_id"), ("work_items", "item_id")):
        ids = await connection.fetch(f"SELECT DISTINCT {column} AS id FROM {table}")
        assert not {f"executions/{row['id']}" for row in ids} & set(names[:2])
    await connection.close()
