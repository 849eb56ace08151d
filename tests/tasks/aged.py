"""Executions at their ends, made old, and what is left of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import task_pb2 as pb
from stationmaster_client.structs import values
from stationmaster_server.wire.fields import struct

from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

FAST = pb.ExecutionOptions(retry=pb.ExecutionRetryPolicy(initial_delay=Duration(nanos=1_000_000)))


async def ran(
    tasks: TaskServiceAsyncStub, kind: str, options: pb.ExecutionOptions = FAST, **payload: Any
) -> pb.Execution:
    """An execution at its end."""
    spec = pb.ExecutionSpec(kind=kind, payload=struct(payload), options=options)
    name = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))).name
    return await ended(tasks, name)


async def ended(tasks: TaskServiceAsyncStub, name: str) -> pb.Execution:
    """An execution at its end."""
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


async def cleaned(
    tasks: TaskServiceAsyncStub, *targets: str, dry_run: bool | None = False, days: float = 30
) -> dict[str, Any]:
    """The counts of a clean-up."""
    asked: dict[str, Any] = {"targets": list(targets), "older_than_days": days}
    execution = await ran(tasks, "cleanup", **(asked if dry_run is None else asked | {"dry_run": dry_run}))
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED, execution.message
    counts: dict[str, Any] = values(execution.result)["counts"]
    return counts


async def age(sql: asyncpg.Connection[Any], *names: str, days: int = 40) -> None:
    """Let executions be old, once their ends are followed up: all there are, or these."""
    ids = [name.partition("/")[2] for name in names]

    async def followed_up() -> bool:
        open_ends = await sql.fetchval(
            """SELECT count(*) FROM work_items WHERE follow_up AND finished_at IS NOT NULL AND NOT followed_up
               AND ($1::uuid[] = '{}' OR item_id = ANY($1::uuid[]))""",
            ids,
        )
        return bool(open_ends == 0)

    await until(followed_up)
    for table, key in (("executions", "id"), ("work_items", "item_id"), ("streams", "stream_id")):
        over = ", finished_at = finished_at - make_interval(days => $1)" if table == "work_items" else ""
        await sql.execute(
            f"UPDATE {table} SET created_at = created_at - make_interval(days => $1){over}"
            f" WHERE $2::uuid[] = '{{}}' OR {key} = ANY($2::uuid[])",
            days,
            ids,
        )


async def names(tasks: TaskServiceAsyncStub) -> set[str]:
    """The executions of other kinds that there are."""
    page = await tasks.ListExecutions(pb.ListExecutionsRequest(filter='kind != "cleanup"', page_size=1000))
    return {execution.name for execution in page.executions}


async def count(sql: asyncpg.Connection[Any], table: str, key: str, name: str) -> int:
    """How many rows of a table belong to something."""
    return int(await sql.fetchval(f"SELECT count(*) FROM {table} WHERE {key} = $1", name.partition("/")[2]))
