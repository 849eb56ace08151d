"""A server that is killed while it processes a document: the next one goes on, and no piece is there twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client.structs import values
from stationmaster_server.db.engine import Database
from stationmaster_server.tasks.process.model import Splitting
from stationmaster_server.tasks.process.splitter import split
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import StartServer
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

TEXT = "".join(f"## Part {n}\n\nThis is what part {n} says of lighthouse {n * 7}.\n\n" for n in range(3000))
EXPECTED = split(TEXT, Splitting(120, 20))
# A kill costs an attempt.
PATIENT = pb.ExecutionOptions(retry=pb.ExecutionRetryPolicy(max_attempts=20))
FAST = {"STATIONMASTER_WORK__LEASE": "2s"}


async def pieces_there(database: Database) -> int:
    async with database.system(autocommit=True) as tx:
        return int(await tx.fetchval("SELECT count(*) FROM pieces"))


async def the_end(tasks: TaskServiceAsyncStub, name: str) -> pb.Execution:
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


@pytest.mark.timeout(400)
async def test_after_kill_9_every_piece_is_there_once(
    database: Database, database_url: str, server_process: StartServer
) -> None:
    name, seen = "", 0
    for _ in range(3):
        server = await server_process(database_url=database_url, environment=FAST)
        async with server.channel() as channel:
            if not name:
                payload = struct({"text": TEXT, "source": "lighthouses", "size": 120, "overlap": 20})
                spec = pb.ExecutionSpec(kind="process", payload=payload, options=PATIENT)
                request = pb.SubmitExecutionRequest(execution=spec)
                name = (await TaskServiceStub(channel).SubmitExecution(request)).name

        async def more(before: int = seen) -> bool:
            return await pieces_there(database) > before

        await until(more, seconds=120)
        await server.kill()
        seen = await pieces_there(database)
        if seen < len(EXPECTED):
            async with database.system(autocommit=True) as tx:
                assert await tx.fetchval("SELECT count(*) FROM documents WHERE ready") == 0
        else:
            break
    last = await server_process(database_url=database_url, environment=FAST)
    async with last.channel() as channel:
        execution = await the_end(TaskServiceStub(channel), name)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED
    assert values(execution.result)["piece_count"] == len(EXPECTED)
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch("SELECT number, text, start_offset FROM pieces ORDER BY number")
        assert await tx.fetchval("SELECT pieces FROM documents WHERE ready") == len(EXPECTED)
    assert [(row["number"], row["text"], row["start_offset"]) for row in rows] == [
        (piece.number, piece.text, piece.start) for piece in EXPECTED
    ]
