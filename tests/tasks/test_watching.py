"""What it costs to watch an execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
from stationmaster.v1 import task_pb2 as pb
from stationmaster_server.db.roles import APP_ROLE
from stationmaster_server.wire.fields import struct

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

LARGE = {"executions": {"payload", "variables"}, "work_items": {"result", "errors", "progress"}}


async def test_a_watcher_reads_nothing_of_an_execution_but_how_it_stands(
    tasks: TaskServiceAsyncStub, administrator_url: str
) -> None:
    spec = pb.ExecutionSpec(kind="steered", payload=struct({"text": "hello"}))
    execution = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))
    request = pb.WatchExecutionRequest(name=execution.name)
    seen = [event async for answer in tasks.WatchExecution(request) for event in answer.events]
    administrator = await asyncpg.connect(administrator_url)
    for table, large in LARGE.items():
        rows = await administrator.fetch("SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass", table)
        small = ", ".join(sorted({row["attname"] for row in rows if row["attname"].isidentifier()} - large))
        await administrator.execute(
            f"REVOKE SELECT ON {table} FROM {APP_ROLE}; GRANT SELECT ({small}) ON {table} TO {APP_ROLE}"
        )
    await administrator.close()
    assert [event async for answer in tasks.WatchExecution(request) for event in answer.events] == seen
    request.after_sequence = seen[-1].sequence
    assert [event async for answer in tasks.WatchExecution(request) for event in answer.events] == []
