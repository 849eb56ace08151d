"""Calls that tests of documents make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stationmaster.v1 import search_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster_client.structs import values
from stationmaster_server.wire.fields import struct

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

CORPUS = {
    "backup": "# Backups\n\nThe database is backed up every night. Restoring a backup takes an hour.",
    "retries": "# Retries\n\nFailed deliveries are retried with exponential backoff, ten times at most.",
    "login": "# Signing in\n\nUsers sign in with a password and a second factor. Passwords expire yearly.",
    "billing": "# Invoices\n\nInvoices are sent on the first day of the month. Payment is due in thirty days.",
    "garden": "# Garden\n\nTomatoes want sun and water. Cut the hedge in autumn.",
    "sprache": "# Datensicherung\n\nDie Datensicherung der Datenbank läuft jede Nacht.",
    "kanji": "# 備份\n\n資料庫每晚備份一次。還原備份需要一小時。",
}


async def process(tasks: TaskServiceAsyncStub, **payload: Any) -> pb.Execution:
    """Process something and wait for the end."""
    spec = pb.ExecutionSpec(kind="process", payload=struct(payload))
    submitted = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=submitted.name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=submitted.name))


async def processed(tasks: TaskServiceAsyncStub, **payload: Any) -> dict[str, Any]:
    """The result of processing something, which succeeds."""
    execution = await process(tasks, **payload)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED, execution.message
    return values(execution.result)


async def found(
    tasks: TaskServiceAsyncStub, query: str, mode: str = "MEANING", *, targets: tuple[str, ...] = ("DOCUMENTS",)
) -> list[str]:
    """The sources of passages, or names of tasks, that a search finds, the best first."""
    return [hit.passage.source or hit.task.name for hit in (await search(tasks, query, mode, targets=targets)).hits]


async def search(
    tasks: TaskServiceAsyncStub, query: str, mode: str = "MEANING", *, targets: tuple[str, ...] = ("DOCUMENTS",)
) -> pb.SearchTasksResponse:
    """Search."""
    request = pb.SearchTasksRequest(
        query=query,
        mode=search_pb2.SearchMode.Value(f"SEARCH_MODE_{mode}"),
        targets=[pb.SearchTarget.Value(f"SEARCH_TARGET_{target}") for target in targets],
    )
    return await tasks.SearchTasks(request)
